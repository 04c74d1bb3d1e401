"use strict";
// Lists above blocks in several versions: shown is the version that is chosen, and drawn when it comes into view.
(() => {
  const page = window.hpcsweep;
  const chosen = (menu) => menu.selectedOptions[0]?.textContent;
  const name = (menu) => menu.closest("label").firstChild.textContent.trim();

  function choose(menu, label) {
    const at = [...menu.options].findIndex(({ textContent }) => textContent === label);
    if (at < 0 || at === menu.selectedIndex) return;
    menu.selectedIndex = at;
    menu.dispatchEvent(new Event("change"));
  }

  for (const box of document.querySelectorAll(".alternatives")) {
    const menus = [...box.querySelectorAll(":scope > .menus select")];
    const versions = [...box.querySelectorAll(":scope > .version")];
    const places = versions.map(({ dataset }) => dataset.at.trim().split(" ").map(Number));
    menus.forEach((menu, list) => menu.addEventListener("change", () => {
      const wanted = menus.map(({ selectedIndex }) => selectedIndex);
      const far = (place) => place.reduce((sum, at, other) => sum + Math.abs(at - wanted[other]), 0);
      const able = [...versions.keys()].filter((at) => places[at][list] === wanted[list]);
      const best = able.reduce((one, two) => (far(places[two]) < far(places[one]) ? two : one));
      menus.forEach((other, at) => { other.selectedIndex = places[best][at]; });
      const old = versions.find(({ hidden }) => !hidden);
      versions.forEach((version, at) => { version.hidden = at !== best; });
      // What is chosen in the figures' own menus stays.
      const before = new Map([...old.querySelectorAll("select")].map((each) => [name(each), chosen(each)]));
      versions[best].querySelectorAll("select").forEach((each) => choose(each, before.get(name(each))));
    }));
  }

  // Of a page that loads itself anew: those that are not as the page has them.
  const menus = [...document.querySelectorAll("select")];
  const key = (menu) => `${menu.closest("figure, .alternatives").id} ${name(menu)}`;
  page.choices = () => menus.filter(({ selectedOptions }) => !selectedOptions[0].defaultSelected).map((menu) => [key(menu), chosen(menu)]);
  const before = new Map(page.before?.choices);
  menus.forEach((menu) => choose(menu, before.get(key(menu))));
})();
