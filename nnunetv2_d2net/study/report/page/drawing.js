"use strict";
// One slice on one canvas: the picture, regions on it, and what lies on which side.
const Drawing = (() => {
  // For each region, which labels are in it.
  const lookups = (regions, nLabels) => regions.map((region) => {
    const lookup = new Uint8Array(nLabels);
    for (const label of region.labels) lookup[label] = 1;
    return lookup;
  });

  const tile = document.createElement("canvas"); // scaling out of the sheet would blend in its neighbors

  const drawSlice = (context, one, image, slice, light) => {
    const { width, height, columns } = one;
    context.fillStyle = "#000";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    if (!image) return;
    const x = (slice % columns) * width, y = Math.floor(slice / columns) * height;
    tile.width = width;
    tile.height = height;
    tile.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
    context.filter = `brightness(${light.brightness}) contrast(${light.contrast})`;
    context.drawImage(tile, 0, 0, context.canvas.width, context.canvas.height);
    context.filter = "none";
  };

  // The border of a mask, along the edges of its pixels.
  const outline = (context, one, labels, lookup, slice) => {
    const { width, height } = one;
    const inside = (x, y) =>
      x >= 0 && y >= 0 && x < width && y < height && lookup[labels[(slice * height + y) * width + x]];
    const across = context.canvas.width / width, down = context.canvas.height / height;
    context.beginPath();
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x <= width; x++) {
        const here = Boolean(inside(x, y));
        if (here !== Boolean(inside(x, y - 1))) {
          context.moveTo(x * across, y * down);
          context.lineTo((x + 1) * across, y * down);
        }
        if (here !== Boolean(inside(x - 1, y))) {
          context.moveTo(x * across, y * down);
          context.lineTo(x * across, (y + 1) * down);
        }
      }
    }
    context.stroke();
  };

  const area = (context, one, labels, lookup, slice) => {
    const { width, height } = one;
    const across = context.canvas.width / width, down = context.canvas.height / height;
    for (let y = 0; y < height; y++) {
      let from = -1;
      for (let x = 0; x <= width; x++) {
        const inside = x < width && lookup[labels[(slice * height + y) * width + x]];
        if (inside && from < 0) from = x;
        if (!inside && from >= 0) {
          context.fillRect(from * across, y * down, (x - from) * across, down);
          from = -1;
        }
      }
    }
  };

  // Areas show one color for each pixel, that of the innermost region; blended ones would be in no legend.
  const innermost = (regions, shown, index) => regions[index].map((inside, label) => (
    inside && !regions.some((other, later) => later > index && shown[later] && other[label])
  ));

  const drawLabels = (context, one, labels, slice, { regions, colors, shown, areas }) => {
    context.lineWidth = Math.max(1.5, context.canvas.width / 220);
    regions.forEach((region, index) => {
      if (!shown[index]) return;
      context.strokeStyle = context.fillStyle = colors[index];
      context.globalAlpha = areas ? 0.5 : 1;
      if (areas) area(context, one, labels, innermost(regions, shown, index), slice);
      else outline(context, one, labels, region, slice);
      context.globalAlpha = 1;
    });
  };

  const drawReference = (context, one, labels, slice, { regions, shown }) => {
    context.save();
    context.strokeStyle = "#fff";
    context.lineWidth = Math.max(1, context.canvas.width / 300);
    context.setLineDash([context.lineWidth * 2, context.lineWidth * 2]);
    regions.forEach((region, index) => {
      if (shown[index]) outline(context, one, labels, region, slice);
    });
    context.restore();
  };

  const cross = (context) => {
    const { width, height } = context.canvas;
    context.fillStyle = "rgba(0, 0, 0, 0.65)";
    context.fillRect(0, 0, width, height);
    context.strokeStyle = "#ff9a6b";
    context.lineWidth = Math.max(2, width / 90);
    context.beginPath();
    context.moveTo(0, 0); context.lineTo(width, height);
    context.moveTo(width, 0); context.lineTo(0, height);
    context.stroke();
  };

  const letters = (context, sides) => {
    if (!sides) return;
    const { width, height } = context.canvas;
    const size = Math.round(11 * devicePixelRatio);
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.fillStyle = "#fff";
    context.strokeStyle = "#000";
    context.lineWidth = size / 5;
    const [left, right, top, bottom] = sides;
    const write = (text, x, y, align, base) => {
      context.textAlign = align;
      context.textBaseline = base;
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    };
    const gap = size / 3;
    write(left, gap, height / 2, "left", "middle");
    write(right, width - gap, height / 2, "right", "middle");
    write(top, width / 2, gap, "center", "top");
    write(bottom, width / 2, height - gap, "center", "bottom");
  };

  return { lookups, drawSlice, drawLabels, drawReference, cross, letters };
})();
