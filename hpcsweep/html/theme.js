"use strict";
// Before anything is painted: the theme that was chosen, else the one that the system asks for.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("hpcsweep-theme"); } catch { /* storage may be forbidden */ }
  const apply = () => {
    document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
    dispatchEvent(new Event("hpcsweep-theme"));
  };
  system.addEventListener("change", apply);
  window.hpcsweepChoose = (theme) => {
    chosen = theme;
    try { localStorage.setItem("hpcsweep-theme", theme); } catch { /* it then lasts as long as the page */ }
    apply();
  };
  apply();
})();
