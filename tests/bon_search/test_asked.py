"""What a command line says of its rewards: which of them is meant, and what each of them gets."""

import pytest

from bon_search.asked import is_embedded


@pytest.mark.parametrize(
    ("spec", "embedded"),
    [
        ("llava-reward", True),
        ("llava-reward:embedded", True),
        ("llava-reward:embedded-fidelity", True),
        ("rank(shapes + llava-reward:embedded-alignment)", True),
        ("llava-reward:alignment", False),
        ("llava-reward@runs/mine", False),
        ("llava-reward(checkpoint=runs/mine)", False),
        ("rank(shapes + jpeg)", False),
    ],
)
def test_the_embedded_reward_is_known_by_all_its_names(spec: str, embedded: bool) -> None:
    assert is_embedded(spec) is embedded
