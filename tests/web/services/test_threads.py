"""Work in a thread of its own."""

import threading

import pytest

from nvs_app.web.services.threads import run_in_fresh_thread


def test_the_thread_ends_with_its_work() -> None:
    before = threading.active_count()
    assert run_in_fresh_thread(threading.get_ident) != threading.get_ident()
    assert threading.active_count() == before


def test_mistakes_arrive() -> None:
    with pytest.raises(ZeroDivisionError):
        run_in_fresh_thread(lambda: 1 // 0)
