"""Places in Gradio's page script that cost a page of hundreds of components a quarter of its opening, done otherwise;
one that keeps the browser awake, and two that make each step of a picture work for all of the page.

Gradio 6.31 makes its tree of components, and once it is there makes it anew, as after a change of the program; goes
through all events for each component; copies its list of kinds for each; and does so on a tree of Svelte's proxies,
where the finished tree alone has to be one. It counts the time of an event that is under way 60 times a second, also
where nobody sees it, and for ever where its component goes before its event ends. Each time that an event gets on, it
copies and tells anew every component that any event was for; and it goes through the tree for each value that an event
takes along. Each place is known by its very text: where a release has another, its file is served as it is.
"""

from collections.abc import Iterator
from pathlib import Path

Change = tuple[str, str]
TREE: tuple[Change, ...] = (
    (  # the events of each component are looked up
        "find_attached_events(e,t){let n=t.filter(t=>t.targets.find(([t])=>t===e.id)).map(t=>{"
        "let n=t.targets.find(([t])=>t===e.id);return n?n[1]:null}).filter(Boolean);"
        "return e.props.shared_props.attached_events=n,e}",
        "find_attached_events(e,t){if(this.events_of!==t){this.events_of=t,this.events=new Map;"
        "for(let n of t){let t=new Map;for(let[e,r]of n.targets)t.has(e)||t.set(e,r);"
        "for(let[e,n]of t)n&&(this.events.has(e)||this.events.set(e,[]),this.events.get(e).push(n))}}"
        "return e.props.shared_props.attached_events=[...this.events.get(e.id)??[]],e}",
    ),
    (  # a kind that is known is taken from where it is kept, before all kinds are put together
        "let i=W&&window.__GRADIO__CC__;W&&window.__GRADIO__CC__RUNTIMES__;let a={...V,...i||{}},o=n||t;"
        "if(H[`${o}-${r}`])return{component:H[`${o}-${r}`],name:t,runtime:U[`${o}-${r}`]};try{",
        "let o=n||t;if(H[`${o}-${r}`])return{component:H[`${o}-${r}`],name:t,runtime:U[`${o}-${r}`]};"
        "let i=W&&window.__GRADIO__CC__,a={...V,...i||{}};try{",
    ),
    (  # the tree is a plain one until it is whole
        "this.#u=o,this.root=this.create_node({id:t.id,children:[]},new Map,!0);",
        "this.#u=o;let l=this.create_node({id:t.id,children:[]},new Map,!0);",
    ),
    (
        "this.root.children=this.#t.children.map(e=>this.traverse(e,e=>this.create_node(e,c,!1,this.reactive_formatter)"
        ")),this.component_ids=e.map(e=>e.id),this.initial_tabs={},X(this.root,this.initial_tabs),"
        "this.postprocess(this.root),this.root_untracked=this.root}reload(",
        "l.children=this.#t.children.map(e=>this.traverse(e,e=>this.create_node(e,c,!1,this.reactive_formatter)"
        ")),this.component_ids=e.map(e=>e.id),this.initial_tabs={},X(l,this.initial_tabs),"
        "this.postprocess(l),this.root_untracked=this.root}reload(",
    ),
    (  # what a field holds is asked of itself; only one that is not on the page is looked for in the tree
        "let t=this.#s.get(e),n=Z(this.root,e);return!t&&!n?null:t?await t():n?Promise.resolve({value:n.props.props."
        "value}):null}",
        "let t=this.#s.get(e);if(t)return await t();let n=Z(this.root,e);return n?{value:n.props.props.value}:null}",
    ),
)
PAGE: tuple[Change, ...] = (
    (  # made anew where something has changed since the page was made
        "le(()=>{v(),oe(()=>{O.reload(",
        "le(()=>{v()&&oe(()=>{O.reload(",
    ),
    (  # how far an event is, is told to whom it is news
        "async update_loading_stati_state(){await Promise.all(Object.entries(this.loading_stati.current).map("
        "([e,t])=>this.update_state_cb(Number(e),{loading_status:t},!1)))}",
        "async update_loading_stati_state(){let n=this.told_stati??={};await Promise.all(Object.entries("
        "this.loading_stati.current).map(([e,t])=>n[e]!==t&&this.update_state_cb(Number(e),{loading_status:n[e]=t},!1"
        ")))}",
    ),
)
STATUS: tuple[Change, ...] = (
    (  # time is counted where it is shown
        "function ze(){me(()=>{F(Pe,(performance.now()-w(de))/1e3),W&&ze()})}",
        "function ze(){me(()=>{F(Pe,(performance.now()-w(de))/1e3),W&&U&&!w(Ne)&&ze()})}",
    ),
    (  # what other events' components were told stays as it is where nothing in it changes
        "for(let[t,n]of Object.entries(this.current))n.fn_index!==e.fn_index&&(this.current[t]={",
        "for(let[t,n]of Object.entries(this.current))n.fn_index!==e.fn_index&&"
        "(n.used_cache??n.cache_duration??n.avg_time??n.cache_event_id)!=null&&(this.current[t]={",
    ),
)
CHANGES = {"core-*.js": TREE, "Blocks-*.js": PAGE, "statustracker-*.js": STATUS}


def mended(assets: Path) -> Iterator[tuple[str, str]]:
    """The files of this folder that are changed, with their text: those that have each of their places once."""
    for pattern, changes in CHANGES.items():
        for path in assets.glob(pattern):
            text = path.read_text("utf-8")
            if all(text.count(old) == 1 for old, _ in changes):
                for change in changes:
                    text = text.replace(*change)
                yield path.name, text
