"""The drills, one file each; `kdlearn.drills.order` says in which order to take them."""
