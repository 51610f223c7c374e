"""The index: who holds what, and whose turn it is."""

from isochrone.router.fleet.index import Index


def test_every_purpose_comes_to_every_shortlist():
    index = Index()
    asked = [index.shortlist(f"m{number}", None, None) for number in range(10)]
    seen = [(purpose, one) for _ in range(4) for purpose in "ab" for one in index.turn(purpose)]
    for purpose in "ab":
        assert all((purpose, one) in seen for one in asked)
