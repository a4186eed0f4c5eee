const data = JSON.parse(document.getElementById("data").textContent);
const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);
for (const form of document.querySelectorAll("form.thresholds")) {
  const cohort = data.find((one) => one.slug === form.dataset.cohort);
  const select = form.querySelector("select"), range = form.querySelector("input");
  const say = (name, text) => { form.querySelector(`[data-out="${name}"]`).value = text; };
  const show = () => {
    const [risk, flagged, sensitivity, specificity, ppv, npv] = cohort.points[select.selectedIndex][Number(range.value)];
    const caught = flagged * (ppv ?? 0), missed = (1 - flagged) * (1 - (npv ?? 1));
    const parts = { caught, false: flagged - caught, missed, spared: 1 - flagged - missed };
    for (const [name, share] of Object.entries(parts)) {
      say(name, Math.round(1000 * Math.max(0, share)).toLocaleString("en"));
      form.querySelector(`[data-bar="${name}"]`).style.width = `${100 * Math.max(0, share)}%`;
    }
    say("risk", percent(risk));
    say("flagged", Math.round(1000 * flagged).toLocaleString("en"));
    for (const [name, share] of Object.entries({ sensitivity, specificity, ppv, npv })) say(name, percent(share));
    say("per", ppv ? (1 / ppv).toFixed(1) : "–");
    range.setAttribute("aria-valuetext", percent(risk));
  };
  const choose = () => {
    const points = cohort.points[select.selectedIndex], before = range.dataset.risk ?? cohort.start;
    range.max = points.length - 1;
    range.value = points.reduce((best, one, place) => (Math.abs(one[0] - before) < Math.abs(points[best][0] - before) ? place : best), 0);
    show();
  };
  range.addEventListener("input", () => { range.dataset.risk = cohort.points[select.selectedIndex][Number(range.value)][0]; show(); });
  select.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  choose();
}
// What is folded is printed too.
const folded = () => [...document.querySelectorAll("details:not([open])")];
let opened = [];
addEventListener("beforeprint", () => { opened = folded(); for (const one of opened) one.open = true; });
addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
