// A list of cards of which only those in sight, and a few around them, are elements: 100,000 take no longer than 100.
// The page itself scrolls. Cards stand in sections under headings that stick; where they stand is arithmetic.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const GAP_PX = 8;
  const HEADING_PX = 44;
  const BEYOND = 0.75; // so much of a window's height above and below it has elements too

  // `place` is where it goes. `makeCard(index)` gives a card's <li>, `keyOf(index)` what it shows: another key, another
  // card. `makeHeading(section)` gives the heading of a section {key, label, count, start}. `onWindow(first, last)` is
  // told which cards are in sight or near, whenever that changes.
  const create = ({ place, makeCard, keyOf, makeHeading, onWindow }) => {
    const shown = new Map(); // by the section's key: {element, heading, list, cards: by their keys}
    let sections = [];
    let side = 150;
    let columns = 1;
    let card = side;
    let total = 0;
    let seen = "";

    const row = () => card + GAP_PX;
    const headingOf = (section) => (section.label ? HEADING_PX : 0);
    const heightOf = (section) => headingOf(section) + Math.ceil(section.count / columns) * row() + (section.label ? GAP_PX : 0);
    const measure = () => {
      const width = place.clientWidth;
      columns = Math.max(1, Math.floor((width + GAP_PX) / (side + GAP_PX)));
      card = Math.max(1, Math.floor((width - GAP_PX * (columns - 1)) / columns));
      let top = 0;
      for (const section of sections) {
        section.top = top;
        top += section.height = heightOf(section);
      }
      place.style.height = `${top}px`;
    };
    const sectionOf = (index) => sections.find(({ start, count }) => index >= start && index < start + count);
    const section = (key) => sections.find((one) => one.key === key);
    const topOf = (index) => {
      const one = sectionOf(index);
      return one ? one.top + headingOf(one) + Math.floor((index - one.start) / columns) * row() : 0;
    };

    const told = ({ label, count }) => `${label} ${count}`;
    const open = (one) => {
      const list = make("ul");
      const heading = one.label ? makeHeading(one) : make("span", { hidden: "" });
      const element = make("section", {}, heading, list);
      const following = sections.filter(({ start }) => start > one.start).find(({ key }) => shown.has(key));
      place.insertBefore(element, following ? shown.get(following.key).element : null);
      return { element, heading, list, cards: new Map() };
    };
    const name = (known, section) => {
      if (known.told === told(section)) return;
      known.told = told(section);
      known.list.setAttribute("aria-label", section.label ? `${section.label}, ${section.count}` : "Pictures");
      if (!section.label) return;
      const heading = makeHeading(section);
      known.heading.replaceWith(heading);
      known.heading = heading;
    };
    const showSection = (section, from, to) => {
      if (!shown.has(section.key)) shown.set(section.key, open(section));
      const known = shown.get(section.key);
      const { element, list, cards } = known;
      name(known, section);
      Object.assign(element.style, { top: `${section.top}px`, height: `${section.height}px` });
      const inside = section.top + headingOf(section);
      const first = Math.max(0, Math.floor((from - inside) / row())) * columns;
      const last = Math.min(section.count, Math.ceil(Math.max(0, to - inside) / row()) * columns);
      const wanted = [];
      for (let k = first; k < last; k++) wanted.push(section.start + k);
      const focused = Number(document.activeElement?.closest?.("li")?.dataset.index);
      const holdsFocus = list.contains(document.activeElement);
      if (holdsFocus && !wanted.includes(focused) && cards.has(keyOf(focused))) wanted.push(focused);
      const keys = new Set(wanted.map(keyOf));
      let lost = null; // the card that had the focus shows something else now
      for (const [key, li] of cards) {
        if (keys.has(key)) continue;
        if (li.contains(document.activeElement)) lost = focused;
        li.remove();
        cards.delete(key);
      }
      let after = list.firstElementChild;
      for (const index of wanted.sort((one, other) => one - other)) {
        const key = keyOf(index);
        if (!cards.has(key)) cards.set(key, makeCard(index));
        const li = cards.get(key);
        const k = index - section.start;
        li.dataset.index = index;
        li.setAttribute("aria-posinset", k + 1);
        li.setAttribute("aria-setsize", section.count);
        Object.assign(li.style, {
          left: `${(k % columns) * row()}px`, top: `${Math.floor(k / columns) * row()}px`, width: `${card}px`, height: `${card}px`,
        });
        if (li === after) after = after.nextElementSibling;
        else list.insertBefore(li, after);
      }
      if (lost !== null) cards.get(keyOf(lost))?.querySelector("button")?.focus({ preventScroll: true });
      return wanted;
    };
    const render = () => {
      if (!place.isConnected || !place.clientWidth) return;
      const top = place.getBoundingClientRect().top;
      const from = -top - innerHeight * BEYOND;
      const to = -top + innerHeight * (1 + BEYOND);
      let first = Infinity;
      let last = -1;
      const kept = new Set();
      for (const section of sections) {
        const hasFocus = shown.get(section.key)?.element.contains(document.activeElement);
        if (section.top + section.height < from || section.top > to) {
          if (!hasFocus) continue;
        }
        kept.add(section.key);
        const wanted = showSection(section, from, to);
        if (section.top + section.height < from || section.top > to) continue;
        for (const index of wanted) {
          const at = topOf(index);
          if (at + card < from || at > to) continue;
          first = Math.min(first, index);
          last = Math.max(last, index);
        }
      }
      for (const [key, { element }] of shown) {
        if (kept.has(key)) continue;
        element.remove();
        shown.delete(key);
      }
      const now = `${first} ${last}`;
      if (last >= 0 && now !== seen) onWindow(first, last);
      seen = now;
    };

    let asked = false;
    const later = () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        render();
      });
    };
    addEventListener("scroll", later, { passive: true });
    // The card that is the first in view stays it.
    const measureInPlace = () => {
      const inView = firstInView();
      measure();
      if (inView) scrollBy(0, topOf(inView) + place.getBoundingClientRect().top - offset());
    };
    let width = 0;
    new ResizeObserver(() => {
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      measureInPlace();
      later();
    }).observe(place);

    // Below what sticks to the window's top.
    const offset = () => parseFloat(getComputedStyle(place).getPropertyValue("--history-top")) || 0;
    const firstInView = () => {
      const top = -place.getBoundingClientRect().top + offset();
      if (top <= 0) return 0;
      const section = sections.findLast((one) => one.top <= top);
      if (!section) return 0;
      const rows = Math.max(0, Math.floor((top - section.top - headingOf(section)) / row()));
      return Math.min(section.start + rows * columns, section.start + section.count - 1);
    };

    return {
      get columns() {
        return columns;
      },
      get total() {
        return total;
      },
      firstInView,
      section,
      // The sections from now on: [{key, label, count}], in order. The section in view stays where it is.
      lay: (next, wantedSide = side) => {
        const inView = firstInView();
        const held = inView ? sectionOf(inView) : null;
        let start = 0;
        sections = next.map((one) => ({ ...one, start: (start += one.count) - one.count }));
        [total, side] = [start, wantedSide];
        measure();
        if (held) scrollBy(0, (section(held.key)?.top ?? held.top) - held.top);
        seen = "";
        render();
      },
      resize: (wanted) => {
        side = wanted;
        measureInPlace();
        render();
      },
      render,
      // The <li> of a card that is an element now, and all that are.
      card: (index) => shown.get(sectionOf(index)?.key)?.cards.get(keyOf(index)),
      cards: () => [...shown.values()].flatMap(({ cards }) => [...cards.values()]),
      // Scrolls so far that the card is in sight, and makes it an element.
      reveal: (index) => {
        const at = topOf(index) + place.getBoundingClientRect().top;
        const above = offset() + HEADING_PX;
        if (at < above) scrollBy(0, at - above);
        else if (at + card > innerHeight) scrollBy(0, at + card - innerHeight + GAP_PX);
        render();
      },
    };
  };

  window.darkroomWindowed = { create };
})();
