/* What pages that try a model share: a canvas to draw on, the values of a picture, and answers as bars. */
"use strict";
const MARGIN = 4 / 28; // around a drawing, as around the digits of MNIST

/* Make `pad` a canvas to draw on. Each stroke is brought to the canvas `seen` at the size and position of MNIST's
   digits: fitted into the middle, its mass in the centre. `changed` gets whether anything is drawn. */
function drawingPad(pad, seen, changed) {
  const ink = pad.getContext("2d", { willReadFrequently: true });
  const small = seen.getContext("2d", { willReadFrequently: true });

  function drawn() {
    const { data } = ink.getImageData(0, 0, pad.width, pad.height);
    let [left, top, right, bottom, mass, x, y] = [pad.width, pad.height, -1, -1, 0, 0, 0];
    for (let row = 0; row < pad.height; row++) {
      for (let column = 0; column < pad.width; column++) {
        const value = data[4 * (row * pad.width + column)];
        if (value < 32) continue;
        [left, right] = [Math.min(left, column), Math.max(right, column)];
        [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
        [mass, x, y] = [mass + value, x + value * column, y + value * row];
      }
    }
    small.fillStyle = "#000";
    small.fillRect(0, 0, seen.width, seen.height);
    if (mass > 0) {
      const side = Math.max(right - left, bottom - top) + 1;
      const zoom = ((1 - 2 * MARGIN) * Math.min(seen.width, seen.height)) / side;
      small.imageSmoothingQuality = "high";
      small.setTransform(zoom, 0, 0, zoom, seen.width / 2 - (zoom * x) / mass, seen.height / 2 - (zoom * y) / mass);
      small.drawImage(pad, 0, 0);
      small.resetTransform();
    }
    changed(mass > 0);
  }

  let last = null;
  const point = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) * pad.width) / box.width, ((event.clientY - box.top) * pad.height) / box.height];
  };
  pad.addEventListener("pointerdown", (event) => {
    last = point(event);
  });
  pad.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const now = point(event);
    Object.assign(ink, { strokeStyle: "#fff", lineWidth: 22, lineCap: "round" });
    ink.beginPath();
    ink.moveTo(...last);
    ink.lineTo(...now);
    ink.stroke();
    last = now;
    drawn();
  });
  addEventListener("pointerup", () => (last = null));
  return {
    clear() {
      ink.fillStyle = "#000";
      ink.fillRect(0, 0, pad.width, pad.height);
      drawn();
    },
  };
}

/* The values of 0 to 255 of a canvas: `channels` is 1 for grey, 3 for RGB. */
function pixelsOf(canvas, channels) {
  const { data } = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, canvas.width, canvas.height);
  const raw = new Float32Array((data.length / 4) * channels);
  for (let pixel = 0; pixel < data.length / 4; pixel++) {
    const [red, green, blue] = data.subarray(4 * pixel, 4 * pixel + 3);
    if (channels === 3) raw.set([red, green, blue], 3 * pixel);
    else raw[pixel] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  }
  return raw;
}

/* Show the values of an output in the element `place`, the best ten first if the labels compete, and a note below. */
function showAnswers(place, about, values, note) {
  const named = [];
  if (values.length === 1 && about.labels.length === 2) {
    // of the second class; that of the first lies on the other side of the threshold
    values = [2 * about.threshold - values[0], values[0]];
  }
  values.forEach((value, number) => named.push([about.labels[number] ?? `output ${number}`, value]));
  if (about.ranked) named.sort((one, other) => other[1] - one[1]);
  const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)];
  const lines = named.slice(0, 10).map(([name, value]) => {
    const line = document.createElement("div");
    const [label, bar, number] = ["span", "i", "span"].map((tag) => line.appendChild(document.createElement(tag)));
    label.textContent = label.title = name;
    bar.style.width = `${(100 * (value - low)) / (high - low)}%`;
    number.textContent = value.toFixed(3);
    return line;
  });
  const last = document.createElement("p");
  last.className = "small";
  last.textContent = note;
  place.replaceChildren(...lines, last);
}
