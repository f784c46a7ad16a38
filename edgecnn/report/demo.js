/* The section "Try the model" of a report: draw, or choose a test sample; the answers of int8 and float side by side. */
"use strict";
edgecnn.load().then((model) => {
  const at = (id) => document.getElementById(`demo-${id}`);
  const { about } = model;
  const shape = about.inputs[0].shape;
  const channels = shape[shape.length - 1];
  const picture = about.inputs.length === 1 && shape.length === 3 && (channels === 1 || channels === 3);
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
  const integers = about.inputs[0].dtype === "int8" ? Int8Array : Uint8Array;
  const lowest = about.inputs[0].dtype === "int8" ? -128 : 0;

  /* What int8 answers, computed here, and what float answered, if that is recorded. */
  function answer(name, input, float) {
    const start = performance.now();
    const output = model.run(input);
    const took = performance.now() - start;
    at("state").textContent = `${name}.`;
    showAnswers(at("int8"), about, model.dequantize(output)[0], `${took.toFixed(2)} ms in WebAssembly`);
    if (float) showAnswers(at("float"), about, float, "recorded in the run, with Keras");
    else at("float").textContent = "Float answers are recorded for test samples only: it is int8 that runs in a page.";
  }

  /* A canvas with the image that these integers are. */
  function painted(canvas, input) {
    [canvas.height, canvas.width] = shape;
    const image = new ImageData(canvas.width, canvas.height);
    for (let pixel = 0; pixel < input.length / channels; pixel++) {
      const place = pixel * channels;
      const colour = [0, 1, 2].map((channel) => input[place + (channel % channels)] - lowest);
      image.data.set([...colour, 255], 4 * pixel);
    }
    canvas.getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
  }

  const seen = at("seen");
  seen.parentElement.hidden = !picture;
  at("drawing").hidden = !tried.draws;
  if (tried.draws) {
    [seen.height, seen.width] = shape;
    const drawing = drawingPad(at("pad"), seen, (any) => {
      if (any) return answer("Drawn", model.quantize([pixelsOf(seen, channels)]));
      at("state").textContent = "Nothing is drawn.";
      for (const id of ["int8", "float"]) at(id).replaceChildren();
    });
    at("clear").addEventListener("click", drawing.clear);
    drawing.clear();
  }
  const buttons = tried.samples.map((sample) => {
    const input = new integers(bytes(sample.input));
    const button = document.createElement("button");
    [button.type, button.title, button.ariaLabel] = ["button", sample.name, sample.name];
    if (picture) painted(button.appendChild(document.createElement("canvas")), input);
    else button.textContent = sample.name;
    button.addEventListener("click", () => {
      if (picture) painted(seen, input);
      answer(sample.name, input, new Float32Array(bytes(sample.float)));
    });
    return button;
  });
  at("samples").append(...buttons);
  at("try").hidden = false;
  buttons[0].click();
}).catch((error) => {
  document.getElementById("demo-state").textContent = `The model cannot be run here: ${error.message}`;
});
