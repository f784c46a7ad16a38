/* Golden inputs (@@golden) and the outputs for them of @@reference, in base64. */
globalThis.golden = @@golden_js;
