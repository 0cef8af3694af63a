"""The stream of a page's events goes on for one that was accepted while the end of the stream was on its way."""

from tests.ui.scripts import evaluate

SCRIPT = """async (late) => {
  const line = (message) => `data: ${JSON.stringify(message)}\\n\\n`;
  const streams = [];
  const fake = async (address) => {
    if (address.includes("join")) return new Response(JSON.stringify({ event_id: address.at(-1) }));
    const stream = {};
    stream.body = new ReadableStream({ start: (controller) => Object.assign(stream, { controller }) });
    stream.say = (...messages) => stream.controller.enqueue(new TextEncoder().encode(messages.map(line).join("")));
    streams.push(stream);
    return new Response(stream.body);
  };
  const fetch = darkroomStream.lasting(fake);
  const heard = [];
  const read = async (response) => {
    for await (const part of response.body) heard.push(...new TextDecoder().decode(part).trim().split("\\n\\n"));
  };
  await fetch("./queue/join?a");
  const reading = read(await fetch("./queue/data?session_hash=1"));
  streams[0].say({ msg: "process_completed", event_id: "a" });
  if (late) await fetch("./queue/join?b"); // accepted, and the page takes the stream for open
  streams[0].say({ msg: "close_stream" });
  streams[0].controller.close();
  if (late) {
    while (streams.length < 2) await new Promise((go) => setTimeout(go));
    const text = new TextEncoder().encode(line({ msg: "process_completed", event_id: "b", what: "é" }));
    [text.slice(0, 60), text.slice(60)].forEach((part) => streams[1].controller.enqueue(part)); // cut within a letter
    streams[1].say({ msg: "close_stream" });
    streams[1].controller.close();
  }
  await reading;
  return { heard: heard.map((text) => JSON.parse(text.slice(5))), opened: streams.length };
}"""
A, B = ({"msg": "process_completed", "event_id": name} for name in "ab")
CLOSED = {"msg": "close_stream"}


def test_an_event_that_comes_with_the_end_of_a_stream_is_heard():
    assert evaluate(["stream.js"], SCRIPT, True) == {"heard": [A, B | {"what": "é"}, CLOSED], "opened": 2}


def test_a_stream_ends_where_nothing_is_under_way():
    assert evaluate(["stream.js"], SCRIPT, False) == {"heard": [A, CLOSED], "opened": 1}
