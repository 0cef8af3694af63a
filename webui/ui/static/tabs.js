// The tab in front stands in the address: a reload, a link and the Back button find it.
(() => {
  "use strict";
  const tabs = () => [...document.querySelectorAll("#darkroom-tabs [role=tab][data-tab-id]")];
  const inFront = () => tabs().find((tab) => tab.ariaSelected === "true")?.dataset.tabId;
  const asked = () => (tabs().find((tab) => `#${tab.dataset.tabId}` === location.hash) ?? tabs()[0])?.dataset.tabId;
  let awaited = null; // the tab that was asked for and is not in front yet

  const go = () => {
    const id = asked();
    if (!id || id === inFront()) return;
    awaited = id;
    tabs().find((tab) => tab.dataset.tabId === id).click();
  };
  const follow = () => {
    const id = inFront();
    if (id === awaited) awaited = null;
    else if (id && !awaited && id !== asked()) history.pushState(history.state, "", `#${id}`);
  };

  window.addEventListener("popstate", go);
  window.darkroomPanel.whenever("#darkroom-tabs", (root) => {
    go();
    new MutationObserver(follow).observe(root, { subtree: true, attributeFilter: ["aria-selected"] });
  });
})();
