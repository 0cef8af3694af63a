// Gradio ends a page's stream of events once none is under way, and the page opens another with its next event. An event that
// was accepted while that end was on its way has no stream then: what it tells waits until something else is asked, if ever.
// So the stream goes on here while an event is under way, and Gradio's own code never sees the end that came too early.
(() => {
  "use strict";
  const JOIN = /\/queue\/join(\?|$)/;
  const DATA = /\/queue\/data\?/;
  const BLANK = "\n\n"; // between two messages

  const told = (text) => {
    const line = text.split("\n").find((one) => one.startsWith("data:"));
    try {
      return JSON.parse(line.slice("data:".length));
    } catch {
      return {};
    }
  };

  // `fetch` with streams that last.
  const lasting = (fetch) => {
    const open = new Set(); // events that were accepted and have not ended
    const asking = new Set(); // answers that are to come

    const join = (...request) => {
      const answer = fetch(...request);
      const noted = answer
        .then((response) => response.clone().json())
        .then(({ event_id: id }) => id && open.add(id), () => {})
        .finally(() => asking.delete(noted));
      asking.add(noted);
      return noted.then(() => answer); // whoever asked hears of it once it is noted here
    };

    const follow = async (...request) => {
      const first = await fetch(...request);
      if (!first.ok || !first.body) return first;
      const encoder = new TextEncoder();
      const [decoder, readers] = [new TextDecoder(), [first.body.getReader()]];
      let left = "";
      // The next messages; null where the stream has ended.
      const next = async () => {
        const { done, value } = await readers[0].read();
        if (done) return left ? [left, (left = "")].slice(0, 1) : null;
        const parts = (left + decoder.decode(value, { stream: true })).split(BLANK);
        left = parts.pop();
        return parts.map((part) => part + BLANK);
      };
      const goesOn = async () => {
        await Promise.all(asking);
        if (!open.size) return false;
        const other = await fetch(...request).catch(() => null);
        if (!other?.ok || !other.body) return false;
        readers[0] = other.body.getReader();
        left = "";
        return true;
      };
      const pull = async (controller) => {
        for (;;) {
          const messages = await next();
          if (!messages) return controller.close();
          const passed = [];
          for (const message of messages) {
            const { msg, event_id: id } = told(message);
            if (msg === "process_completed") open.delete(id);
            if (msg === "close_stream" && (await goesOn())) break;
            passed.push(message);
          }
          if (passed.length) return controller.enqueue(encoder.encode(passed.join("")));
        }
      };
      const body = new ReadableStream({ pull, cancel: (reason) => readers[0].cancel(reason) });
      return new Response(body, { status: first.status, headers: first.headers });
    };

    return (...request) => {
      const address = String(request[0]?.url ?? request[0]);
      if (JOIN.test(address)) return join(...request);
      return DATA.test(address) ? follow(...request) : fetch(...request);
    };
  };

  window.darkroomStream = { lasting };
  if (window.document) window.fetch = lasting(window.fetch.bind(window));
})();
