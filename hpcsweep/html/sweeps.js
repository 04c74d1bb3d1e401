"use strict";
// The list of sweeps: shows those that have all the words of the filter.
(() => {
  const page = window.hpcsweep, field = document.getElementById("sweep-filter"), count = document.getElementById("sweep-count");
  if (!field) return; // no sweeps
  const rows = [...document.querySelectorAll(".sweeps tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} sweeps` : "";
  };
  field.addEventListener("input", filter);
  page.view = () => ({ sweeps: field.value });
  if (page.before?.sweeps) {
    field.value = page.before.sweeps;
    filter();
  }
})();
