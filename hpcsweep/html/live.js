"use strict";
// A page that is written again while its sweep runs: it loads itself anew, and is then as it was. Where it is
// served and the server does not answer, it stays, says so and tries again.
(() => {
  const page = window.hpcsweep, button = document.getElementById("live");
  const KEY = `hpcsweep-view ${location.pathname}`, QUIET = 5000; // ms without a touch, a key or a wheel
  const PATIENCE = 30000; // ms for an answer
  const every = Number(button.dataset.every) * 1000;
  let due = Date.now() + every, touched = 0;
  try { page.before = JSON.parse(sessionStorage.getItem(KEY)); } catch { /* then the page begins anew */ }
  for (const kind of ["keydown", "pointerdown", "wheel", "input"]) addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  const paused = () => button.ariaPressed !== "true";
  if (page.before?.paused) button.ariaPressed = "false";
  button.addEventListener("click", () => {
    button.ariaPressed = String(paused());
    due = Date.now() + every;
  });
  addEventListener("pagehide", () => {
    const view = { ...page.view?.(), choices: page.choices?.(), scroll: scrollY, paused: paused() };
    try { sessionStorage.setItem(KEY, JSON.stringify(view)); } catch { /* storage may be forbidden */ }
  });
  if (page.before) {
    history.scrollRestoration = "manual";
    scrollTo({ top: page.before.scroll, behavior: "instant" });
  }
  const served = location.protocol.startsWith("http");
  const answers = async () => {
    const signal = AbortSignal.timeout(PATIENCE); // a tunnel may take the question and bring no answer
    try { return (await fetch(location.href, { method: "HEAD", cache: "no-store", signal })).ok; } catch { return false; }
  };
  const quiet = () => !paused() && !document.hidden && Date.now() - touched >= Math.min(QUIET, every);
  setInterval(async () => {
    if (Date.now() < due || !quiet()) return;
    due = Date.now() + every;
    if (served && !await answers()) button.textContent = "No answer";
    else if (quiet()) location.reload(); // nobody has followed a link meanwhile
  }, 250);
})();
