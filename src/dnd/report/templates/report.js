(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const box = document.getElementById("find");
  if (!box) return;
  const items = [...document.querySelectorAll("[data-search]")];
  const count = document.getElementById("count");
  const filters = [...document.querySelectorAll("[data-filter]")];
  const apply = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const fits =
        words.every((word) => item.dataset.search.includes(word)) &&
        filters.every((f) => !f.value || item.dataset[f.dataset.filter] === f.value);
      item.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === items.length ? `${shown} units` : `${shown} of ${items.length} units`;
  };
  box.addEventListener("input", apply);
  for (const filter of filters) filter.addEventListener("change", apply);
  const step = (by) => {
    const shown = items.filter((item) => !item.hidden);
    const top = 90;
    const at = shown.findIndex((item) => item.getBoundingClientRect().top > top - 8);
    const here = at < 0 ? shown.length : at;
    const onIt = here < shown.length && Math.abs(shown[here].getBoundingClientRect().top - top) < 16;
    const target = shown[by > 0 ? here + (onIt ? 1 : 0) : here - 1];
    if (!target) return;
    target.scrollIntoView({ block: "start" });
    target.focus({ preventScroll: true });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === box) {
      if (event.key === "Escape") {
        box.value = "";
        apply();
        box.blur();
      }
      return;
    }
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "/") {
      event.preventDefault();
      box.focus();
      box.select();
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
  });
  apply();
})();
