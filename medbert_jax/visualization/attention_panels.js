// Small pictures of every layer and head, in at most 40 rows: what codes together give to others together.
const picture = (model, layer, head, canvas) => {
  const values = weights(model, layer), bins = Math.min(count, 40), sums = new Float64Array(bins * bins), of = new Float64Array(bins);
  for (let reading = 0; reading < count; reading++) {
    const bin = Math.floor((reading * bins) / count), start = (head * count + reading) * count;
    of[bin]++;
    for (let read = 0; read < count; read++) sums[bin * bins + Math.floor((read * bins) / count)] += values[start + read];
  }
  canvas.width = 120; canvas.height = 150;
  const context = canvas.getContext("2d");
  context.strokeStyle = colour(head);
  const y = (bin) => ((bin + .5) / bins) * 150;
  const levels = Array.from({ length: LEVELS }, () => []);
  sums.forEach((sum, at) => {
    const share = sum / of[Math.floor(at / bins)];
    if (share >= .02) levels[Math.min(LEVELS - 1, Math.floor(share * LEVELS))].push(at);
  });
  levels.forEach((all, level) => {
    context.globalAlpha = (level + .5) / LEVELS;
    context.beginPath();
    for (const at of all) { context.moveTo(0, y(Math.floor(at / bins))); context.lineTo(120, y(at % bins)); }
    context.stroke();
  });
};
const gallery = () => {
  const waiting = [];
  sections.forEach((section, model) => {
    const place = section.querySelector(".gallery");
    place.style.setProperty("--heads", heads);
    for (let layer = 0; layer < layers; layer++) for (let head = 0; head < heads; head++) {
      const canvas = make("canvas"), button = make("button", { type: "button" }, canvas, `${layer + 1}·${head + 1}`);
      button.setAttribute("aria-label", `Layer ${layer + 1}, head ${head + 1}`);
      Object.assign(button.dataset, { layer, head });
      button.addEventListener("click", () => { state.layer = layer; state.heads = new Set([head]); show(); });
      place.append(button);
      waiting.push(() => picture(model, layer, head, canvas));
    }
  });
  const next = () => { waiting.shift()?.(); if (waiting.length) setTimeout(next); else document.body.dataset.pictures = "drawn"; };
  setTimeout(next);
};

// Where attention goes: shares of the chosen layer, of this patient and, where they were asked for, of many.
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const share = (name, of, mark) => {
  const bar = make("td", { className: "bar" });
  names.forEach((relation, number) => {
    const part = make("span");
    part.style.setProperty("--share", `${100 * of[relation]}%`); part.style.setProperty("--colour", colours[number]);
    bar.append(part);
  });
  const row = make("tr", { className: mark ? "" : "other" }, make("th", { scope: "row" }, name), bar, ...names.map((relation) => make("td", {}, percent(of[relation]))));
  if (mark) { const swatch = make("i"); swatch.style.setProperty("--colour", mark); row.firstChild.prepend(swatch); }
  return row;
};
const panel = (of, words) => {
  const head = make("tr", {}, make("th", { scope: "col" }, "head"), make("th"), ...names.map((relation, number) => {
    const swatch = make("i");
    swatch.style.setProperty("--colour", colours[number]);
    return make("th", { scope: "col" }, swatch, relations[relation]);
  }));
  const layer = of.layers[state.layer];
  const mean = Object.fromEntries(names.map((relation) => [relation, layer.reduce((sum, one) => sum + one[relation], 0) / layer.length]));
  const body = make("tbody", {}, ...layer.map((one, number) => share(`${number + 1}`, one, colour(number))), share("mean", mean), share("uniform", of.uniform));
  return make("table", {}, make("caption", {}, words), make("thead", {}, head), body);
};
const panels = () => sections.forEach((section, model) => {
  const { patient, averaged } = models[model];
  section.querySelector(".of-layer").value = state.layer + 1;
  const tables = [panel(patient, "This patient: mean over the codes that read; uniform: every code of the record read alike.")];
  if (averaged) tables.push(panel(averaged, `Mean over ${averaged.patients.toLocaleString("en")} patients, each counting alike.`));
  section.querySelector(".panels").replaceChildren(...tables);
});
