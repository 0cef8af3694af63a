// Boards of the History tab: the list beside the pictures, the menu that puts them on one, and how boards get names.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const { request } = window.darkroomArchive;
  const ROUTE = "./api/history/boards";

  // `look()` is told when something else is to be shown: all, favourites, grids or a board. `putOn(name)` puts what is
  // selected there. `attempt` runs what a person asked for, `say` tells them something.
  const create = (root, { look, putOn, attempt, say }) => {
    let looked = "all";
    let board = "";
    let named = null; // what a name is asked for
    const part = (selector) => root.querySelector(selector);

    const show = () => {
      for (const button of root.querySelectorAll(".history-boards button")) {
        const own = "board" in button.dataset;
        const pressed = own ? looked === "board" && button.dataset.board === board : button.dataset.view === looked;
        button.setAttribute("aria-pressed", String(pressed));
      }
      part(".history-board").hidden = looked !== "board";
      part(".history-board strong").textContent = board;
      confirmRemoving(false);
    };
    const confirmRemoving = (really) => {
      part("[data-act=ask-remove-board]").hidden = really;
      part("[data-act=remove-board]").hidden = !really;
    };
    const choose = (what, name = "") => {
      [looked, board] = [what, name];
      show();
      look();
    };
    const tell = attempt(async () => {
      const told = await request(ROUTE);
      const counts = { all: told.pictures, favourites: told.favourites, grids: told.grids };
      for (const [name, count] of Object.entries(counts)) part(`[data-view=${name}] small`).textContent = count.toLocaleString();
      const known = JSON.stringify(told.boards);
      const place = part("[data-boards]");
      if (place.dataset.known !== known) {
        place.dataset.known = known;
        place.replaceChildren(...told.boards.map(({ name, pictures }) => {
          const count = make("small", {}, pictures.toLocaleString());
          return make("li", {}, make("button", { type: "button", "data-board": name }, make("span", {}, name), " ", count));
        }));
        show();
      }
      if (told.problem) say(told.problem);
    });

    const showMenu = (wanted) => {
      const menu = part(".history-menu");
      menu.hidden = !wanted;
      part("[data-act=boards]").setAttribute("aria-expanded", String(wanted));
      if (!wanted) return;
      const choices = [...root.querySelectorAll("[data-board]")].map(({ dataset }) => {
        const button = make("button", { type: "button" }, dataset.board);
        button.addEventListener("click", () => putOn(dataset.board));
        return make("li", {}, button);
      });
      const another = make("button", { type: "button" }, "+ New board");
      another.addEventListener("click", () => askName("", async (name) => putOn((await request(ROUTE, "PUT", { name })).name)));
      menu.replaceChildren(...choices, make("li", {}, another));
      menu.querySelector("button").focus();
    };

    // What is wrong with a name is said where it is asked for.
    const askName = (name, work) => {
      const dialog = part(".history-name");
      named = work;
      dialog.querySelector("input").value = name;
      dialog.querySelector(".history-trouble").textContent = "";
      dialog.showModal();
      dialog.querySelector("input").select();
    };
    part(".history-name form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const dialog = part(".history-name");
      try {
        await named(dialog.querySelector("input").value);
        dialog.close();
      } catch (error) {
        dialog.querySelector(".history-trouble").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
      }
    });
    root.addEventListener("click", ({ target }) => {
      const { view, board: name } = target.closest(".history-boards button")?.dataset ?? {};
      if (view) choose(view);
      else if (name !== undefined) choose("board", name);
    });

    return {
      tell,
      choose,
      showMenu,
      get isBoard() {
        return looked === "board";
      },
      get name() {
        return board;
      },
      get isMenuOpen() {
        return !part(".history-menu").hidden;
      },
      // What it adds to what is looked for.
      criteria: () => ({ favourites: [["favourites", "true"]], grids: [["kind", "grid"]], board: [["board", board]] })[looked] ?? [],
      acts: {
        boards: () => showMenu(part(".history-menu").hidden),
        "new-board": () => askName("", async (name) => {
          const made = await request(ROUTE, "PUT", { name });
          choose("board", made.name);
        }),
        "rename-board": () => askName(board, async (to) => {
          const made = await request(ROUTE, "PATCH", { name: board, to });
          choose("board", made.name);
        }),
        "ask-remove-board": () => confirmRemoving(true),
        "remove-board": attempt(async () => {
          await request(`${ROUTE}?${new URLSearchParams({ name: board })}`, "DELETE");
          choose("all");
        }),
      },
    };
  };

  window.darkroomBoards = { create };
})();
