const find = (id) => document.getElementById(id);
const articles = [...document.querySelectorAll("article")];
const filter = () => {
  const [group, rule, says] = ["group", "rule", "says"].map((id) => find(id).value);
  for (const one of articles) {
    const fired = one.dataset.yes.split(" ").includes(rule);
    one.hidden = (group && one.dataset.group !== group) || (rule && fired !== (says === "yes"));
    for (const row of one.querySelectorAll("tr[data-rule]")) row.classList.toggle("chosen", row.dataset.rule === rule);
  }
  find("shown").value = `${articles.filter((one) => !one.hidden).length} of ${articles.length} patients`;
};
const step = (by) => {
  const shown = articles.filter((one) => !one.hidden);
  const here = shown.indexOf(document.activeElement.closest("article") ?? current);
  current = shown[Math.max(0, Math.min(here + by, shown.length - 1))];
  current?.focus();
  current?.scrollIntoView();
};
let current = null;
find("filters").addEventListener("input", filter);
find("next").addEventListener("click", () => step(1));
find("previous").addEventListener("click", () => step(-1));
addEventListener("keydown", (event) => {
  if (event.target.closest("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
});
filter();
