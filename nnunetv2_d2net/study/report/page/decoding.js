"use strict";
// From the text in the page to pictures and label maps.
const Decoding = (() => {
  const blob = (id) => document.getElementById(`blob-${id}`).textContent;

  const picture = (id) => new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("a picture cannot be decoded"));
    image.src = blob(id);
  });

  const inflate = async (id) => {
    const bytes = Uint8Array.from(atob(blob(id)), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  const decodeRuns = (bytes, size, nLabels) => {
    const labels = new Uint8Array(size);
    let at = 0, number = 0, weight = 1;
    for (const byte of bytes) {
      number += (byte % 128) * weight;
      weight *= 128;
      if (byte < 128) {
        const end = at + Math.floor(number / nLabels);
        labels.fill(number % nLabels, at, end);
        at = end; number = 0; weight = 1;
      }
    }
    return labels;
  };

  const decodeCase = async (one, nLabels) => {
    const size = one.width * one.height * one.slices.length;
    const [images, reference, ...packed] = await Promise.all([
      Promise.all(one.images.map((id) => (id === null ? null : picture(id)))),
      inflate(one.reference),
      ...one.predictions.map((prediction) => inflate(prediction.blob)),
    ]);
    const cache = new Map();
    const prediction = (arm, subset) => {
      const sizes = one.predictions[arm].sizes;
      if (!sizes[subset]) return null;
      if (!cache.has(`${arm} ${subset}`)) {
        const from = sizes.slice(0, subset).reduce((sum, n) => sum + n, 0);
        cache.set(`${arm} ${subset}`, decodeRuns(packed[arm].subarray(from, from + sizes[subset]), size, nLabels));
      }
      return cache.get(`${arm} ${subset}`);
    };
    return { images, reference: decodeRuns(reference, size, nLabels), prediction };
  };

  return { decodeCase };
})();
