"""``python -m kdlearn.experiments``: see :func:`kdlearn.experiments.running.main`."""

from kdlearn.experiments.running import main

if __name__ == "__main__":
    main()
