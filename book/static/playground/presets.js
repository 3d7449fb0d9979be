// Settings worth a look, and what they show. `expected` is what the measurement over seeds has to
// say of the distilled student: a gain, little (less than 5 points), or nothing.
kdPlayground.presets = [
  {
    id: "unlabeled",
    title: "Points without labels",
    settings: "data=arms&from=teacher&temperature=2&labels=20&unlabeled=200",
    expected: "gain",
    text: "Twenty labels leave the arms half drawn. The teacher answers 200 more points, and its student sees the whole spiral.",
  },
  {
    id: "noise",
    title: "Wrong labels",
    settings: "data=moons&from=teacher&temperature=2&labels=100&unlabeled=0&noise=0.3",
    expected: "gain",
    text: "Three labels of ten are wrong, and the student of labels learns them by heart. The teacher was trained on clean labels, so its answers are not wrong in those places.",
  },
  {
    id: "overlap",
    title: "Classes that overlap",
    settings: "data=clouds&from=teacher&temperature=1&labels=30&unlabeled=0",
    expected: "gain",
    text: "Where clouds overlap a label is one throw of a die. The teacher's answer is the chance of each class, so a point tells more than its label does.",
  },
  {
    id: "dark",
    title: "Dark knowledge",
    settings: "data=digits&from=teacher&temperature=4&labels=50&unlabeled=0",
    expected: "gain",
    text: "Both students see the same fifty digits. At T = 4 the teacher's answers also say which wrong digits are near, and that is all that differs.",
  },
  {
    id: "transfer",
    title: "Digits without labels",
    settings: "data=digits&from=teacher&temperature=4&labels=50&unlabeled=200",
    expected: "gain",
    text: "The fifty digits again, and 200 that nobody labeled for the student. The teacher answers these too.",
  },
  {
    id: "clean",
    title: "Enough clean labels",
    settings: "data=arms&from=teacher&temperature=2&labels=200&unlabeled=0",
    expected: "nothing",
    text: "The labels are clean and 200 points show the whole spiral. The teacher knows nothing that they do not say.",
  },
  {
    id: "hard",
    title: "Temperature 1",
    settings: "data=digits&from=teacher&temperature=1&labels=50&unlabeled=0",
    expected: "little",
    text: "The same as dark knowledge, but at T = 1. The teacher is sure of the digits that it was trained on, so its answers say little more than the labels.",
  },
  {
    id: "tiny",
    title: "A student too small",
    settings: "data=arms&from=teacher&temperature=2&labels=200&unlabeled=0&width=2",
    expected: "nothing",
    text: "Two units a layer cannot bend around the arms. What the student lacks is room, and no target gives it that. One seed can look like anything; the mean is nothing.",
  },
];
