"""A server that is asked by https, in the browser, with a login."""

import httpx
import pytest

from tests.certificates import make_certificate


@pytest.mark.slow
def test_page_login_and_jobs_over_https(browser, start_server, tmp_path):
    cert, key = make_certificate(tmp_path)
    server = start_server("--tls-cert", cert, "--tls-key", key, "--auth", "ann:s3cret", cert=cert)
    assert server.url.startswith("https://")
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
    page.goto(server.url)
    for label, text in (("username", "ann"), ("password", "s3cret")):
        page.get_by_label(label).fill(text)
    page.get_by_role("button", name="Login").click()
    page.locator("#txt2img-prompt textarea").fill("a red apple")
    page.locator("#txt2img-generate").click()
    page.locator("#txt2img-status [data-state=done]").wait_for(timeout=90_000)
    page.wait_for_function("document.querySelector('#txt2img-gallery img')?.naturalWidth > 0")
    kept = context.cookies()
    assert kept and all(cookie["secure"] and cookie["httpOnly"] for cookie in kept)
    assert not troubles
    page.goto(f"{server.url}logout")
    for _ in range(6):
        page.get_by_label("username").fill("ann")
        page.get_by_label("password").fill("guess")
        with page.expect_response(lambda answer: answer.url.endswith("/login")):
            page.get_by_role("button", name="Login").click()
    page.get_by_role("alert").get_by_text("too many wrong names and passwords").wait_for()
    assert not [text for text in troubles if "Content Security Policy" in text]
    context.close()
    with pytest.raises(httpx.HTTPError):
        httpx.get(server.url.replace("https", "http"), trust_env=False)
