/* The page: draw, drop a picture, or use the camera; the answers of the model beside it. */
"use strict";
const at = (id) => document.getElementById(id);
const MARGIN = 4 / 28; // around a drawing, as around the digits of MNIST

edgecnn.load().then((model) => {
  const [right, all] = model.check(golden);
  const { about } = model;
  const shape = about.inputs[0].shape;
  const channels = shape[shape.length - 1];
  const picture = about.inputs.length === 1 && shape.length === 3 && (channels === 1 || channels === 3);
  const few = about.outputs.length === 1 && about.outputs[0].size <= 1000;
  at("state").textContent =
    right === all
      ? `ok: ${right} golden inputs, every output byte as in ${about.reference}`
      : `wrong: only ${right} of ${all} golden inputs give the bytes of ${about.reference}; make the kit again`;
  if (!(picture && few && about.pixels)) {
    at("state").textContent += ". This page shows pictures only: call model.js with your own data";
    return;
  }
  const [height, width] = shape;
  const seen = at("seen");
  [seen.height, seen.width] = [height, width];
  const small = seen.getContext("2d", { willReadFrequently: true });
  const pad = at("pad");
  const ink = pad.getContext("2d", { willReadFrequently: true });
  at("try").hidden = false;

  /* Show the answers for what is on the small canvas. */
  function answer() {
    const { data } = small.getImageData(0, 0, width, height);
    const raw = new Float32Array(height * width * channels);
    for (let pixel = 0; pixel < height * width; pixel++) {
      const [red, green, blue] = data.subarray(4 * pixel, 4 * pixel + 3);
      if (channels === 3) raw.set([red, green, blue], 3 * pixel);
      else raw[pixel] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
    }
    if (at("invert").checked) raw.forEach((value, place) => (raw[place] = 255 - value));
    const start = performance.now();
    const integers = model.run(model.quantize([raw]));
    const took = performance.now() - start;
    show(model.dequantize(integers)[0], took);
  }

  function show(values, took) {
    const named = [];
    if (values.length === 1 && about.labels.length === 2) {
      named.push([about.labels[values[0] > about.threshold ? 1 : 0], values[0]]);
    } else {
      values.forEach((value, place) => named.push([about.labels[place] ?? `output ${place}`, value]));
      if (about.ranked) named.sort((one, other) => other[1] - one[1]);
    }
    const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)];
    const lines = named.slice(0, 10).map(([name, value]) => {
      const line = document.createElement("div");
      const [label, bar, number] = ["span", "i", "span"].map((tag) => line.appendChild(document.createElement(tag)));
      label.textContent = label.title = name;
      bar.style.width = `${(100 * (value - low)) / (high - low)}%`;
      number.textContent = value.toFixed(3);
      return line;
    });
    const time = document.createElement("p");
    time.className = "small";
    time.textContent = `${took.toFixed(2)} ms in WebAssembly`;
    at("answers").replaceChildren(...lines, time);
  }

  /* Bring the drawing to the size and position of MNIST's digits: fitted into the middle, its mass in the centre. */
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
    small.fillRect(0, 0, width, height);
    if (mass === 0) {
      at("answers").replaceChildren();
      return;
    }
    const side = Math.max(right - left, bottom - top) + 1;
    const zoom = ((1 - 2 * MARGIN) * Math.min(width, height)) / side;
    small.imageSmoothingQuality = "high";
    small.setTransform(zoom, 0, 0, zoom, width / 2 - (zoom * x) / mass, height / 2 - (zoom * y) / mass);
    small.drawImage(pad, 0, 0);
    small.resetTransform();
    answer();
  }

  function clear() {
    stop();
    ink.fillStyle = "#000";
    ink.fillRect(0, 0, pad.width, pad.height);
    drawn();
  }

  /* A picture, stretched to the size of the model's input. */
  function pictured(image) {
    small.imageSmoothingQuality = "high";
    small.drawImage(image, 0, 0, width, height);
    answer();
  }

  async function opened(file) {
    stop();
    try {
      const image = await createImageBitmap(file);
      ink.drawImage(image, 0, 0, pad.width, pad.height);
      pictured(image);
    } catch (error) {
      at("state").textContent = `${file.name} cannot be read as a picture: ${error.message}`;
    }
  }

  let stream = null;
  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    [at("video").hidden, pad.hidden] = [true, false];
  }

  async function film() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      at("state").textContent = `no camera: ${error.message}`;
      return;
    }
    const video = at("video");
    video.srcObject = stream;
    await video.play();
    [video.hidden, pad.hidden] = [false, true];
    (function next() {
      if (stream === null) return;
      pictured(video);
      requestAnimationFrame(next);
    })();
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
  at("clear").addEventListener("click", clear);
  at("file").addEventListener("change", (event) => event.target.files.length && opened(event.target.files[0]));
  at("camera").addEventListener("click", () => (stream === null ? film() : clear()));
  at("invert").addEventListener("change", answer);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    at("place").classList.add("over");
  });
  addEventListener("dragleave", () => at("place").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    at("place").classList.remove("over");
    if (event.dataTransfer.files.length) opened(event.dataTransfer.files[0]);
  });
  clear();
}).catch((error) => (at("state").textContent = `the model cannot be loaded: ${error.message}`));
