// The playground without its page: networks, Adam, and a training of two students side by side.
// A classic script, so that it also runs from a folder; everything hangs on `kdPlayground`.
(function (root) {
  "use strict";

  const CHOICES = {
    data: ["arms", "moons", "clouds", "digits"],
    from: ["labels", "teacher", "both"],
    temperature: [1, 1.5, 2, 3, 4, 6, 8, 12, 20],
    weight: [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1],
    labels: [10, 20, 30, 50, 100, 200],
    unlabeled: [0, 20, 50, 100, 200, 300],
    noise: [0, 0.1, 0.2, 0.3, 0.4, 0.5],
    width: [2, 4, 8, 16, 32],
  };
  const START = {
    data: "arms", from: "teacher", temperature: 2, weight: 0.9,
    labels: 20, unlabeled: 200, noise: 0, width: 16, seed: 1,
  };
  const LAST_SEED = 999;
  const BATCH = 32;
  const STEPS = 600;
  const RATE = 0.01;

  // The generator mulberry32: 32 bits of state, the same numbers in every browser.
  function random(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let z = Math.imul(state ^ (state >>> 15), state | 1);
      z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
      return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
    };
  }

  function shuffled(items, draw) {
    const order = Array.from(items);
    for (let i = order.length - 1; i > 0; i -= 1) {
      const j = Math.floor(draw() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  // A network is a list of layers: weights of shape (outputs, inputs) row by row, and biases.
  // ReLU stands between them; the start is PyTorch's for nn.Linear.
  function createNetwork(sizes, draw) {
    return sizes.slice(1).map((outputs, k) => {
      const inputs = sizes[k];
      const bound = 1 / Math.sqrt(inputs);
      const fill = (count) => Float64Array.from({ length: count }, () => (2 * draw() - 1) * bound);
      return { inputs, outputs, weights: fill(inputs * outputs), biases: fill(outputs) };
    });
  }

  function copyNetwork(network) {
    return network.map((layer) => ({
      ...layer, weights: layer.weights.slice(), biases: layer.biases.slice(),
    }));
  }

  // Returns the input and what each layer makes of it; the last entry holds the logits.
  function forward(network, rows, count) {
    const values = [rows];
    network.forEach(({ inputs, outputs, weights, biases }, k) => {
      const from = values[k];
      const to = new Float64Array(count * outputs);
      const last = k === network.length - 1;
      for (let n = 0; n < count; n += 1) {
        for (let o = 0; o < outputs; o += 1) {
          let sum = biases[o];
          for (let i = 0; i < inputs; i += 1) sum += weights[o * inputs + i] * from[n * inputs + i];
          to[n * outputs + o] = last || sum > 0 ? sum : 0;
        }
      }
      values.push(to);
    });
    return values;
  }

  // Turns the gradient of the logits into one array for each array of parameters.
  function backward(network, values, gradient, count) {
    const found = [];
    let above = gradient;
    for (let k = network.length - 1; k >= 0; k -= 1) {
      const { inputs, outputs, weights } = network[k];
      const from = values[k];
      const ofWeights = new Float64Array(weights.length);
      const ofBiases = new Float64Array(outputs);
      const below = new Float64Array(count * inputs);
      for (let n = 0; n < count; n += 1) {
        for (let o = 0; o < outputs; o += 1) {
          const g = above[n * outputs + o];
          if (g === 0) continue;
          ofBiases[o] += g;
          for (let i = 0; i < inputs; i += 1) {
            ofWeights[o * inputs + i] += g * from[n * inputs + i];
            below[n * inputs + i] += g * weights[o * inputs + i];
          }
        }
      }
      if (k > 0) {
        for (let i = 0; i < below.length; i += 1) if (from[i] <= 0) below[i] = 0;
      }
      found.unshift(ofWeights, ofBiases);
      above = below;
    }
    return found;
  }

  function createAdam(network) {
    const parameters = network.flatMap(({ weights, biases }) => [weights, biases]);
    const first = parameters.map((array) => new Float64Array(array.length));
    const second = parameters.map((array) => new Float64Array(array.length));
    let time = 0;
    return (gradients) => {
      time += 1;
      const rate = RATE / (1 - 0.9 ** time);
      const scale = Math.sqrt(1 - 0.999 ** time);
      parameters.forEach((array, k) => {
        const [m, v, g] = [first[k], second[k], gradients[k]];
        for (let i = 0; i < array.length; i += 1) {
          m[i] = 0.9 * m[i] + 0.1 * g[i];
          v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
          array[i] -= (rate * m[i]) / (Math.sqrt(v[i]) / scale + 1e-8);
        }
      });
    };
  }

  function logSoftmax(logits, row, classes, temperature) {
    const at = row * classes;
    let top = -Infinity;
    for (let c = 0; c < classes; c += 1) top = Math.max(top, logits[at + c] / temperature);
    let total = 0;
    for (let c = 0; c < classes; c += 1) total += Math.exp(logits[at + c] / temperature - top);
    const shift = top + Math.log(total);
    return Array.from({ length: classes }, (_, c) => logits[at + c] / temperature - shift);
  }

  function softmax(logits, row, classes, temperature = 1) {
    return logSoftmax(logits, row, classes, temperature).map(Math.exp);
  }

  function largest(logits, row, classes) {
    let best = 0;
    for (let c = 1; c < classes; c += 1) {
      if (logits[row * classes + c] > logits[row * classes + best]) best = c;
    }
    return best;
  }

  // weight * T^2 * KL(teacher || student), mean over all rows, + (1 - weight) * cross-entropy, mean
  // over the first rows, those with a label. Returns the loss and its gradient for the logits.
  function distillationLoss(logits, teacher, labels, count, classes, { temperature, weight }) {
    const gradient = new Float64Array(count * classes);
    let loss = 0;
    for (let n = 0; n < count; n += 1) {
      if (weight > 0) {
        const student = logSoftmax(logits, n, classes, temperature);
        const target = logSoftmax(teacher, n, classes, temperature);
        for (let c = 0; c < classes; c += 1) {
          const p = Math.exp(target[c]);
          loss += (weight * temperature ** 2 * p * (target[c] - student[c])) / count;
          gradient[n * classes + c] += (weight * temperature * (Math.exp(student[c]) - p)) / count;
        }
      }
      if (weight < 1 && n < labels.length) {
        const student = logSoftmax(logits, n, classes, 1);
        const share = (1 - weight) / labels.length;
        loss -= share * student[labels[n]];
        for (let c = 0; c < classes; c += 1) {
          gradient[n * classes + c] += share * (Math.exp(student[c]) - (c === labels[n] ? 1 : 0));
        }
      }
    }
    return { loss, gradient };
  }

  // Whole batches from a list, in a new order each time around.
  function createBatches(items, size, draw) {
    let order = [];
    return () => {
      if (order.length < size) order = shuffled(items, draw);
      return order.splice(0, Math.min(size, items.length));
    };
  }

  function rowsOf(values, width, indices) {
    const rows = new Float64Array(indices.length * width);
    indices.forEach((index, n) => rows.set(values.subarray(index * width, (index + 1) * width), n * width));
    return rows;
  }

  // `count` points, class by class in turn, and the rest, both in random order.
  function drawPoints(labels, classes, count, draw) {
    const queues = Array.from({ length: classes }, () => []);
    shuffled(labels.keys(), draw).forEach((index) => queues[labels[index]].push(index));
    const turns = shuffled(queues, draw);
    const chosen = [];
    for (let k = 0; chosen.length < count; k += 1) {
      const queue = turns[k % classes];
      if (queue.length) chosen.push(queue.pop());
    }
    return { chosen, rest: shuffled(turns.flat(), draw) };
  }

  function spoiled(truth, share, classes, draw) {
    const labels = truth.slice();
    const wrong = shuffled(labels.keys(), draw).slice(0, Math.round(share * labels.length));
    wrong.forEach((i) => { labels[i] = (labels[i] + 1 + Math.floor(draw() * (classes - 1))) % classes; });
    return labels;
  }

  function evaluate(logits, teacher, labels, classes) {
    let right = 0;
    let agreed = 0;
    labels.forEach((label, n) => {
      const answer = largest(logits, n, classes);
      right += answer === label;
      agreed += answer === largest(teacher, n, classes);
    });
    return { accuracy: right / labels.length, agreement: agreed / labels.length };
  }

  // Two students with the same start and the same batches of labels: one learns from the labels
  // alone, the other as the settings say. `source` is what kdPlayground.sources has of a data set.
  function createSession(source, settings) {
    const { width, classes } = source;
    const stream = (which) => random(settings.seed * 101 + which);
    const drawn = drawPoints(source.pool.labels, classes, settings.labels, stream(1));
    const labeled = drawn.chosen;
    const alone = settings.from === "labels";
    const unlabeled = alone ? [] : drawn.rest.slice(0, settings.unlabeled);
    const truth = labeled.map((index) => source.pool.labels[index]);
    const given = spoiled(truth, settings.noise, classes, stream(2));
    const labelOf = new Map(labeled.map((index, n) => [index, given[n]]));
    const start = createNetwork([width, settings.width, settings.width, classes], stream(3));
    const weight = { labels: 0, teacher: 1, both: settings.weight }[settings.from];
    const students = [{ name: "labels", weight: 0 }, { name: "distilled", weight }].map((student) => {
      const network = copyNetwork(start);
      return { ...student, network, update: createAdam(network) };
    });
    const nextLabeled = createBatches(labeled, BATCH, stream(4));
    const nextUnlabeled = createBatches(unlabeled, BATCH, stream(5));
    const session = { settings, source, labeled, unlabeled, truth, given, students, steps: 0 };

    session.draw = () => ({ labeled: nextLabeled(), unlabeled: nextUnlabeled() });
    session.train = (batch) => {
      session.steps += 1;
      const labels = batch.labeled.map((index) => labelOf.get(index));
      return students.map((student) => {
        const seen = student.weight > 0 ? batch.labeled.concat(batch.unlabeled) : batch.labeled;
        const rows = rowsOf(source.pool.rows, width, seen);
        const targets = rowsOf(source.pool.teacher, classes, seen);
        const values = forward(student.network, rows, seen.length);
        const { loss, gradient } = distillationLoss(
          values[values.length - 1], targets, labels, seen.length, classes,
          { temperature: settings.temperature, weight: student.weight },
        );
        student.update(backward(student.network, values, gradient, seen.length));
        return loss;
      });
    };
    session.step = () => session.train(session.draw());
    session.logits = (student, rows) => forward(student.network, rows, rows.length / width).pop();
    session.measure = () => students.map((student) => evaluate(
      session.logits(student, source.held.rows), source.held.teacher, source.held.labels, classes,
    ));
    return session;
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  // Weights are stored as one signed byte each, times a scale for each array.
  function decodeArrays(stored) {
    return stored.map(({ scale, values }) =>
      Float64Array.from(new Int8Array(bytes(values).buffer), (value) => value * scale));
  }

  function decodeNetwork(stored) {
    const arrays = decodeArrays(stored);
    return Array.from({ length: arrays.length / 2 }, (_, k) => {
      const outputs = arrays[2 * k + 1].length;
      const inputs = arrays[2 * k].length / outputs;
      return { inputs, outputs, weights: arrays[2 * k], biases: arrays[2 * k + 1] };
    });
  }

  // 3 x 3 convolution with a border of zeros, then ReLU.
  function convolve(image, channels, side, weights, biases) {
    const outputs = biases.length;
    const result = new Float64Array(outputs * side * side);
    for (let o = 0; o < outputs; o += 1) {
      for (let y = 0; y < side; y += 1) {
        for (let x = 0; x < side; x += 1) {
          let sum = biases[o];
          for (let c = 0; c < channels; c += 1) {
            for (let v = Math.max(0, 1 - y); v < Math.min(3, side + 1 - y); v += 1) {
              for (let u = Math.max(0, 1 - x); u < Math.min(3, side + 1 - x); u += 1) {
                sum += weights[((o * channels + c) * 3 + v) * 3 + u] *
                  image[(c * side + y + v - 1) * side + x + u - 1];
              }
            }
          }
          result[(o * side + y) * side + x] = Math.max(0, sum);
        }
      }
    }
    return result;
  }

  function halve(image, channels, side) {
    const half = side / 2;
    return Float64Array.from({ length: channels * half * half }, (_, i) => {
      const c = Math.floor(i / (half * half));
      const at = (c * side + 2 * (Math.floor(i / half) % half)) * side + 2 * (i % half);
      return Math.max(image[at], image[at + 1], image[at + side], image[at + side + 1]);
    });
  }

  // The attention map: channel mean of squares, scaled to length 1.
  function attentionMap(features, channels) {
    const count = features.length / channels;
    const map = new Float64Array(count);
    features.forEach((value, i) => { map[i % count] += value * value / channels; });
    const length = Math.sqrt(map.reduce((sum, value) => sum + value * value, 0));
    return length > 0 ? map.map((value) => value / length) : map;
  }

  // Two convolutions with pooling, one linear layer; an image of 8 x 8 to logits and two maps.
  function readDigit([w1, b1, w2, b2, w3, b3], image) {
    const first = convolve(image, 1, 8, w1, b1);
    const second = convolve(halve(first, b1.length, 8), b1.length, 4, w2, b2);
    const features = halve(second, b2.length, 4);
    const layer = { inputs: features.length, outputs: b3.length, weights: w3, biases: b3 };
    return {
      logits: forward([layer], features, 1)[1],
      maps: [attentionMap(first, b1.length), attentionMap(second, b2.length)],
    };
  }

  function answered(part, width, answer) {
    const count = part.labels.length;
    const logits = Array.from({ length: count }, (_, n) =>
      Array.from(answer(part.rows.subarray(n * width, (n + 1) * width))));
    return { ...part, teacher: Float64Array.from(logits.flat()) };
  }

  function split(rows, labels, width, pool) {
    return {
      pool: { rows: rows.slice(0, pool * width), labels: labels.slice(0, pool) },
      held: { rows: rows.slice(pool * width), labels: labels.slice(pool) },
    };
  }

  function makeSource(rows, stored, width, answer) {
    const labels = Array.from(stored.labels, Number);
    const { pool, held } = split(rows, labels, width, stored.pool);
    return {
      width, classes: stored.names.length, names: stored.names, answer,
      pool: answered(pool, width, answer), held: answered(held, width, answer),
    };
  }

  // A data set of the files data.js and digits.js with its teacher's logits for every point.
  const made = new Map();
  function source(name) {
    if (!made.has(name)) {
      if (name === "digits") {
        const stored = root.kdPlayground.digits;
        const network = decodeArrays(stored.networks.teacher);
        const pixels = Float64Array.from(stored.pixels, (digit) => parseInt(digit, 17) / 16);
        made.set(name, makeSource(pixels, stored, 64, (row) => readDigit(network, row).logits));
      } else {
        const stored = root.kdPlayground.shapes[name];
        const network = decodeNetwork(stored.teacher);
        const rows = Float64Array.from(bytes(stored.points), (value) => value / 127.5 - 1);
        made.set(name, makeSource(rows, stored, 2, (row) => forward(network, row, 1).pop()));
      }
    }
    return made.get(name);
  }

  // "data=moons&labels=30" to settings: what is missing or not offered is as in START.
  function parseSettings(text) {
    const given = new URLSearchParams(text);
    const settings = { ...START };
    Object.entries(CHOICES).forEach(([key, offered]) => {
      const found = offered.find((choice) => String(choice) === given.get(key));
      if (found !== undefined) settings[key] = found;
    });
    const seed = Number(given.get("seed"));
    if (Number.isInteger(seed) && seed >= 1 && seed <= LAST_SEED) settings.seed = seed;
    return settings;
  }

  function formatSettings(settings) {
    return new URLSearchParams(settings).toString();
  }

  root.kdPlayground = Object.assign(root.kdPlayground || {}, {
    BATCH, CHOICES, LAST_SEED, RATE, START, STEPS,
    createSession, decodeArrays, decodeNetwork, formatSettings, forward, largest, parseSettings,
    random, readDigit, softmax, source,
  });
})(globalThis);
