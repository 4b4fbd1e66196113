"""Many questions to one endpoint: at once, each paid for once, and what to do when some get no verdict."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from rewards.errors import RewardError
from rewards.judge_cache import JudgeCache
from rewards.judge_client import Endpoint, NoVerdictError
from rewards.judge_questions import LOWEST, Question


class Court:
    """Asks many questions at once, each as often as told, and remembers the verdicts.

    Args:
        endpoint: Who answers.
        cache: Where verdicts are kept.
        concurrency: Calls under way at once.
        repeats: How often each question is asked, with other seeds; the mean of the verdicts counts.
    """

    def __init__(self, endpoint: Endpoint, cache: JudgeCache, *, concurrency: int = 8, repeats: int = 1) -> None:
        if concurrency < 1 or repeats < 1:
            raise RewardError(f"Got concurrency={concurrency}, repeats={repeats}; expected at least 1 of each.")
        self.endpoint = endpoint
        self.cache = cache
        self._concurrency = concurrency
        self._repeats = repeats
        self._heard = False  # whether the endpoint has ever given a verdict or declined to
        self._failed = 0

    @property
    def settings(self) -> str:
        """All that verdicts depend on but the questions."""
        return f"{self.endpoint.identity} {self._repeats}"

    def verdicts(self, questions: Sequence[Question]) -> list[float | None]:
        """The mean verdict on each question; None where all calls failed.

        Raises:
            RewardError: The endpoint has never answered and is not expected to.
        """
        calls = {
            self.endpoint.key(question, repeat): (question, repeat)
            for question in questions
            for repeat in range(self._repeats)
        }
        known = {key: verdict.value for key in calls if (verdict := self.cache.verdict(key))}
        faults: dict[str, NoVerdictError] = {}
        self._ask({key: call for key, call in calls.items() if key not in known}, known, faults)
        self._report(faults, len(calls), nothing=not known)
        return [self._mean(question, known) for question in questions]

    def _ask(
        self, calls: dict[str, tuple[Question, int]], known: dict[str, float], faults: dict[str, NoVerdictError]
    ) -> None:
        """Make the calls and enter what comes of them into `known` or `faults`."""
        stop = Event()
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = {
                key: pool.submit(self._asked, key, question, repeat, stop) for key, (question, repeat) in calls.items()
            }
            try:
                for key, future in futures.items():
                    outcome = future.result()
                    if isinstance(outcome, float):
                        known[key] = outcome
                    else:
                        faults[key] = outcome
            except BaseException:  # also of the keyboard: nobody waits for the others' tries
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _asked(self, key: str, question: Question, repeat: int, stop: Event) -> float | NoVerdictError:
        """One call, in a thread."""
        try:
            verdict = self.endpoint.ask(question, repeat=repeat, stop=stop)
        except NoVerdictError as error:
            self._heard |= error.kind == "refusal"
            if error.kind == "setup" and not self._heard:
                raise RewardError(self._fault(error)) from error
            return error
        self._heard = True
        self.cache.keep_verdict(key, verdict)
        return verdict.value

    def _report(self, faults: dict[str, NoVerdictError], asked: int, *, nothing: bool) -> None:
        """Warn of the calls that failed, or give up on an endpoint that has never answered."""
        if not faults:
            return
        self._failed += len(faults)
        first = next(iter(faults.values()))
        if nothing and not self._heard and self._failed > 1:
            raise RewardError(self._fault(first))
        warnings.warn(
            f"{len(faults)} of {asked} calls of the judge {self.endpoint.model} gave no verdict ({first}); a picture "
            f"without one counts {LOWEST:g}, a pair without one as a tie.",
            stacklevel=2,
        )

    def _fault(self, error: NoVerdictError) -> str:
        return (
            f"The judge {self.endpoint.model!r} at {self.endpoint.url} gives no verdicts: {error}. Check url, model "
            f"and the environment variable {self.endpoint.key_env or '(none is read)'}."
        )

    def _mean(self, question: Question, known: dict[str, float]) -> float | None:
        keys = (self.endpoint.key(question, repeat) for repeat in range(self._repeats))
        values = [known[key] for key in keys if key in known]
        return sum(values) / len(values) if values else None
