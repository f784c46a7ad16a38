/* The page: draw, drop a picture, or use the camera; the answers of the model beside it. */
"use strict";
const at = (id) => document.getElementById(id);

edgecnn.load().then((model) => {
  const [right, all] = model.check(golden.pairs);
  const { about } = model;
  const shape = about.inputs[0].shape;
  const channels = shape[shape.length - 1];
  const picture = about.inputs.length === 1 && shape.length === 3 && (channels === 1 || channels === 3);
  const few = about.outputs.length === 1 && about.outputs[0].size <= 1000;
  at("state").textContent =
    right === all
      ? `ok: ${right} golden inputs, every output byte as in ${golden.reference}`
      : `wrong: only ${right} of ${all} golden inputs give the bytes of ${golden.reference}; make the kit again`;
  if (!(picture && few && about.pixels)) {
    at("state").textContent += ". This page shows pictures only: call model.js with your own data";
    return;
  }
  const [height, width] = shape;
  const seen = at("seen");
  [seen.height, seen.width] = [height, width];
  const small = seen.getContext("2d", { willReadFrequently: true });
  at("try").hidden = false;

  /* Show the answers for what is on the small canvas. */
  function answer() {
    const raw = pixelsOf(seen, channels);
    if (at("invert").checked) raw.forEach((value, place) => (raw[place] = 255 - value));
    const start = performance.now();
    const integers = model.run(model.quantize([raw]));
    const took = performance.now() - start;
    showAnswers(at("answers"), about, model.dequantize(integers)[0], `${took.toFixed(2)} ms in WebAssembly`);
  }

  const pad = at("pad");
  const drawing = drawingPad(pad, seen, (any) => (any ? answer() : at("answers").replaceChildren()));

  function clear() {
    stop();
    drawing.clear();
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
      pad.getContext("2d").drawImage(image, 0, 0, pad.width, pad.height);
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
