"""The page on which people hear detections and decide: gradio on this machine alone, which fetches nothing.

Sound and picture of a question are inside the page, so that it serves no file of the disk; a content security policy
keeps the browser from asking any other machine, and the host's name is checked, so that no web page can talk to it.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from earshot.messages import install_line
from earshot.pages.review_card import card
from earshot.review.decisions import ACCEPT, CORRECT, REJECT, SKIP, Decision
from earshot.review.questions import ORDERS, Question
from earshot.review.session import Session
from earshot.sound.folder import printable

HOSTS = ("127.0.0.1", "localhost")
ANY = "all classes"
LISTED = 8  # latest answers that the page lists
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "frame-ancestors 'none'"
)
SHORTCUTS = """<script>
document.addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
  const name = {a: "accept", r: "reject", s: "skip", u: "undo", " ": "play"}[e.key.toLowerCase()];
  if (!name) return;
  e.preventDefault();
  if (name === "play") {
    const sound = document.querySelector(".er-card audio");
    if (sound) { if (sound.paused) sound.play(); else sound.pause(); }
  } else document.getElementById("er-" + name)?.click();
});
</script>"""
CSS = """
.er-head{font-size:1.05rem;margin-bottom:.3rem}.er-label{font-size:1.35rem}.er-note{opacity:.75;margin-left:.6rem}
.er-picture{width:100%;border-radius:6px;cursor:pointer;background:#fff}.er-card audio{width:100%;margin:.4rem 0}
.er-event{font-size:.85rem;margin:.15rem;padding:.15rem .6rem;border-radius:10px;border:1px solid #9ab;cursor:pointer}
.er-event.asked{font-weight:600}.er-warning{color:#b3261e}.er-done{font-size:1.2rem;padding:2rem 0}
footer{display:none!important}
"""


@lru_cache(maxsize=1)
def gradio():
    """The library, told to send nothing to anybody; an error with its install line where it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise ValueError(f"the review page needs gradio: {install_line('pages')} ({error})") from error
    return gradio


def build(session: Session):
    """The page of a session as gradio's Blocks."""
    with gradio().Blocks(title="Earshot: review", analytics_enabled=False) as blocks:
        page = _Page(session)
        page.connect(blocks)
    return blocks


class _Page:
    """What is on the page, laid out where gradio is asked to, and what its buttons do."""

    def __init__(self, session: Session):
        gr, self.session = gradio(), session
        labels = sorted({q.event_label for q in session.all.values()})
        self.item = gr.State("")
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                self.progress = gr.Markdown(elem_id="er-progress")
            self.order = gr.Dropdown(list(ORDERS), value=session.order, label="ask first by", min_width=160)
            self.only = gr.Dropdown([ANY, *labels], value=ANY, label="class", min_width=160)
        with gr.Row():
            with gr.Column(scale=3):
                self.shown = gr.HTML(elem_id="er-question")
            with gr.Column(scale=1, min_width=280):
                with gr.Row():
                    self.accept = gr.Button("Accept (A)", variant="primary", elem_id="er-accept", min_width=110)
                    self.reject = gr.Button("Reject (R)", variant="stop", elem_id="er-reject", min_width=110)
                with gr.Row():
                    self.skip = gr.Button("Skip (S)", elem_id="er-skip", min_width=110)
                    self.undo = gr.Button("Undo (U)", elem_id="er-undo", min_width=110)
                gr.Markdown("**Correct**: all that is heard in this stretch, or nothing")
                known = list(session.classes)
                self.names = gr.Dropdown(known, value=[], multiselect=True, label="heard here", elem_id="er-names")
                self.new = gr.Textbox(label="further classes", placeholder="new names", lines=1, elem_id="er-new")
                with gr.Row():
                    self.onset = gr.Number(label="from second", elem_id="er-onset", min_width=110)
                    self.offset = gr.Number(label="to second", elem_id="er-offset", min_width=110)
                gr.Markdown("<small>From and to count where one class is heard.</small>")
                self.correct = gr.Button("Correct", elem_id="er-correct")
        self.history = gr.Dataframe(
            headers=["when", "who", "decision", "detected", "heard", "recording", "seconds"], interactive=False,
            label=f"latest answers, in {session.log.path}", wrap=True, elem_id="er-history",
        )  # fmt: skip

    def connect(self, blocks):
        """Say what happens when something is clicked or chosen, and when the page is opened."""
        given = [self.names, self.new, self.onset, self.offset]
        view = [self.item, self.shown, self.progress, *given, self.history]
        buttons = {ACCEPT: self.accept, REJECT: self.reject, SKIP: self.skip, CORRECT: self.correct}
        for kind, button in buttons.items():
            button.click(self._decide(kind, len(view)), [self.item, self.only, *given], view, api_visibility="private")
        self.undo.click(self._take_back, [self.only], view, api_visibility="private")
        self.order.input(self._sort, [self.order, self.only], view, api_visibility="private")
        self.only.input(self._look, [self.only], view, api_visibility="private")
        blocks.load(self._look, [self.only], view, api_visibility="private")

    def _look(self, label: str, question: Question | None = None):
        """A question, or the next one, as the page shows it: a value for each part of its view."""
        session = self.session
        question = question or session.next("" if label == ANY else label)
        rows = [[*_row(d)] for d in session.last(LISTED)]
        if question is None:
            text = '<div class="er-done">No question is open here. Thank you!</div>'
            return "", text, told(session), [], "", None, None, rows
        others = list(session.all.values())
        times = round(question.onset, 3), round(question.offset, 3)
        return question.item, card(question, others), told(session), [], "", *times, rows

    def _decide(self, kind: str, parts: int):
        """What a button of this kind does; parts: of the view, which all stay as they are where it fails."""
        gr, session = gradio(), self.session

        def act(item, label, names, new, onset, offset):
            if not item:
                return self._look(label)
            heard = [*(names or ()), *new.replace(",", " ").split()]
            try:
                session.decide(item, kind, heard, (onset, offset) if kind == CORRECT and heard else None)
            except (ValueError, OSError) as error:  # a disk that is full: nothing was stored
                gr.Warning(str(error))
                if any(q.item == item for q in session.queue):  # what was typed stays
                    return [gr.skip()] * parts
            return self._look(label)

        return act

    def _take_back(self, label):
        gr = gradio()
        try:
            question = self.session.undo()
        except OSError as error:
            gr.Warning(str(error))
            return self._look(label)
        if question is None:
            gr.Info(f"{self.session.who} has no answer to take back")
        return self._look(label, question)

    def _sort(self, order, label):
        self.session.sort(order)
        return self._look(label)


def told(session: Session) -> str:
    """The head line: who answers, how many answers of whomever stand, how many questions are open."""
    counts = session.counts()
    words = {ACCEPT: "accepted", REJECT: "rejected", CORRECT: "corrected", SKIP: "skipped"}
    given = ", ".join(f"{counts[kind]} {word}" for kind, word in words.items())
    return f"### Earshot: review\n{given}; **{counts['open']} open**. You are {session.who}."


def _row(d: Decision) -> tuple:
    heard = {ACCEPT: d.event_label, REJECT: f"no {d.event_label}", SKIP: ""}.get(d.decision, d.labels or "nothing")
    seconds = f"{d.onset:.2f} to {d.offset:.2f}"
    name = printable("/".join(Path(d.path).parts[-2:]))  # recorders at several sites write the same names
    return d.when[:19].replace("T", " "), d.who, d.decision, d.event_label, heard, name, seconds


def application(session: Session):
    """The page as an application of this machine alone."""
    gr = gradio()
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(
        app, build(session), path="", server_name=HOSTS[0], allowed_paths=[], max_file_size="1kb", ssr_mode=False,
        footer_links=[], theme=gr.themes.Soft(**fonts), css=CSS, head=SHORTCUTS, show_error=False,
    )  # fmt: skip
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))
    app.add_middleware(Policy)
    return app


class Policy:
    """Adds the content security policy to every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def sent(message):
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
                message = {**message, "headers": [*headers, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)


def serve(session: Session, port: int, ready=print):
    """Serve the page until Ctrl-C. ready: told the address once the port is ours; port 0: any that is free."""
    import socket

    gradio()
    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOSTS[0], port))
        except OSError as error:
            raise ValueError(f"port {port} of this machine is taken ({error.strerror}): give another --port") from error
        app = application(session)
        ready(f"http://{HOSTS[0]}:{sock.getsockname()[1]}")
        config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none")
        uvicorn.Server(config).run(sockets=[sock])
