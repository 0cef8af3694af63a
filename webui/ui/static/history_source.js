// The pictures that fit what is looked for, a page at a time: those that were loaded are known by their place and id.
(() => {
  "use strict";
  const { request } = window.darkroomArchive;
  const PAGE = 100;
  const PAGES_KEPT = 60;
  const NEAR = 5; // pages from those in sight that are kept first

  // `criteria()` gives what is looked for, as pairs of names and values.
  const create = (criteria) => {
    let pages = new Map(); // by number
    let total = 0;
    let stamp = ""; // what the list was made of
    let asked = 0;
    let waiting = 0; // questions on their way
    let filling = false;
    const coming = new Map(); // by number: pages that somebody waits for
    let window_ = [0, 0];

    const get = (index) => pages.get(Math.floor(index / PAGE))?.[index % PAGE];
    const indexOf = (id) => {
      for (const [number, pictures] of pages) {
        const k = pictures.findIndex((picture) => picture.id === id);
        if (k >= 0) return number * PAGE + k;
      }
      return -1;
    };
    const query = (offset, limit) => new URLSearchParams([...criteria(), ["offset", offset], ["limit", limit]]);
    const ask = async (page) => {
      waiting += 1;
      try {
        return await request(`./api/history?${query(page * PAGE, PAGE)}`);
      } finally {
        waiting -= 1;
      }
    };

    // From the beginning, with the pages around the card `inView`: all at once, so that nothing flickers. Gives what the
    // server told, and whether it is new; nothing where a later question has made this one void.
    const begin = async (inView = 0) => {
      const number = ++asked;
      const found = await ask(0);
      if (number !== asked) return null;
      const now = JSON.stringify([criteria(), found.days, found.total, found.pictures]);
      if (now === stamp) return { ...found, isNew: false };
      const kept = new Map([[0, found.pictures]]);
      const here = Math.floor(inView / PAGE);
      for (const page of [here, here + 1]) {
        if (page > 0 && page * PAGE < found.total) kept.set(page, (await ask(page)).pictures);
      }
      if (number !== asked) return null;
      [stamp, pages, total] = [now, kept, found.total];
      return { ...found, isNew: true };
    };
    // Pages for these cards, one after the other; those that were passed by in the meantime are left out.
    const fill = async (from, to, show) => {
      window_ = [from, to];
      if (filling) return;
      filling = true;
      try {
        for (;;) {
          const number = asked;
          const first = Math.floor(window_[0] / PAGE);
          const last = Math.floor(window_[1] / PAGE);
          let page = first;
          while (page <= last && pages.has(page)) page += 1;
          if (page > last || page * PAGE >= total) return;
          const { pictures } = await ask(page);
          if (number !== asked) continue;
          pages.set(page, pictures);
          for (const other of pages.keys()) {
            if (pages.size <= PAGES_KEPT) break;
            if (other > 0 && (other > last + NEAR || other < first - NEAR)) pages.delete(other);
          }
          show();
        }
      } finally {
        filling = false;
      }
    };
    return {
      get,
      indexOf,
      begin,
      fill,
      get total() {
        return total;
      },
      get isAsking() {
        return waiting > 0;
      },
      find: (id) => get(indexOf(id)),
      // The picture there, also where it was not loaded.
      at: async (index) => {
        const page = Math.floor(index / PAGE);
        if (!pages.has(page)) {
          if (!coming.has(page)) coming.set(page, ask(page).finally(() => coming.delete(page)));
          pages.set(page, (await coming.get(page)).pictures);
        }
        return get(index);
      },
      ids: async (from, count) => (await request(`./api/history/ids?${query(from, count)}`)).ids,
      // Something has changed: the next question is answered anew.
      change: () => (stamp = ""),
    };
  };

  window.darkroomSource = { create };
})();
