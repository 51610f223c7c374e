"""Which methods a path takes."""

from isochrone.router.errors import MethodNotAllowed


def check_method(method: str, allowed: str) -> None:
    """Let in one method; where that is GET, HEAD as well (RFC 9110 §9.3.2).

    Raises:
        MethodNotAllowed: it is another.
    """
    allow = ("GET", "HEAD") if allowed == "GET" else (allowed,)
    if method not in allow:
        raise MethodNotAllowed(f"this path takes {' and '.join(allow)}", allow=allow)
