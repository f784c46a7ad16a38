/* node self_test.js: exit status 0 if every output byte is as in the reference. */
"use strict";
require("./model.js");
require("./golden.js");

edgecnn.load().then((model) => {
  const [right, all] = model.check(golden.pairs);
  const counted = `${right} of ${all} golden inputs`;
  if (right < all) {
    console.error(`wrong: only ${counted} give the bytes of ${golden.reference}; make the kit again`);
    process.exitCode = 1;
  } else {
    console.log(`ok: ${counted}, every output byte as in ${golden.reference}`);
  }
});
