// The login page, which Gradio makes: it has no words for an answer that says to wait.
(() => {
  "use strict";
  const ask = window.fetch;
  window.fetch = async (...asked) => {
    const answer = await ask(...asked);
    if (answer.status !== 429 || asked[1]?.method !== "POST") return answer;
    const note = document.getElementById("login-note") ?? document.createElement("p");
    Object.assign(note, { id: "login-note", textContent: (await answer.clone().json()).detail });
    note.setAttribute("role", "alert");
    document.querySelector("gradio-app button")?.before(note);
    return answer;
  };
})();
