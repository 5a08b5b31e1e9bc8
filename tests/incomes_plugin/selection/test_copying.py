"""The pointer-sentinel mixture of copying, against its formula token by token."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from incomes_plugin.gist.spelling import Spelling, joined
from incomes_plugin.selection.copying import Copier, Mixture, covering, mixed

HIDDEN, LATENTS, VOCAB = 12, 6, 20


@pytest.fixture
def copier() -> Copier:
    torch.manual_seed(3)
    copier = Copier(HIDDEN, LATENTS, copy_dim=5)
    copier.sentinel.data.normal_()
    copier.sentinel_bias.data.fill_(1.5)
    copier.again.data.copy_(torch.tensor([-0.5, 0.3, -0.7, 0.2]))
    copier.pick_again.data.normal_()
    copier.held.data.normal_()
    copier.spread.copy_(torch.rand(LATENTS) + 0.5)
    return copier.requires_grad_(False)


def by_hand(copier, hidden, latents, spelling, bias, answer, logits):
    """p `[V]` of one row behind what the answer has said, as the module's docstring has it."""
    said = [*reversed(answer), -1, -1, -1]
    h = hidden / hidden.square().mean().sqrt()
    query = copier.query @ h / math.sqrt(HIDDEN)
    scores = [float(copier.sentinel @ h) / math.sqrt(HIDDEN) + float(copier.sentinel_bias)]
    white = latents / copier.spread
    cover = cover_by_hand(spelling, answer)
    for (_, place, link), (_, *before, _, _) in zip(spelling.rows, spelling.table().tolist(), strict=True):
        ahead = spelling.rows[link][1] if link >= 0 else place - 1
        key = copier.key @ white[place] + (copier.before @ white[ahead] if ahead >= 0 else 0)
        same = 0
        while same < 3 and before[same] == said[same]:
            same += 1
        score = query @ key / math.sqrt(2 * LATENTS) / math.sqrt(len(query)) + copier.match[:same].sum()
        score = score + copier.again[: cover[place]].sum() + copier.pick_again[: max(cover), same].sum()
        scores.append(float(score + bias))
    weights = torch.tensor(scores).softmax(0)
    found = logits.softmax(0) * weights[0]
    for (token, _, _), weight in zip(spelling.rows, weights[1:], strict=True):
        found[token] += weight
    return found


def shares_of(nothing, copied):
    """Mixture that hold nothing back."""
    return Mixture(nothing, copied, torch.zeros_like(copied))


def cover_by_hand(spelling, answer):
    """Of each place of an edit."""
    cover = [0] * len(spelling.tokens)
    for i, token in enumerate(answer):
        for one, *before, place, _ in spelling.table().tolist():
            last = [*reversed(answer[:i]), -1, -1, -1][:3]
            same = 0
            while same < 3 and before[same] == last[same]:
                same += 1
            if one == token:
                cover[place] = max(cover[place], 1 + same)
    return cover


def covered(table, answer):
    """`[1, S]`, by the code."""
    cover = torch.zeros(1, len(table), dtype=torch.int64)
    for i, token in enumerate(answer):
        said = torch.tensor([[*reversed(answer[:i]), -1, -1, -1][:3]])
        cover = covering(cover, table, said, torch.tensor([token]))
    return cover


@pytest.mark.parametrize("answer", [(), (7,), (7, 4), (7, 4, 9), (11, 12, 9, 5, 9, 9), (7, 4, 9, 7, 7, 4)])
def test_the_mixture_is_that_of_its_formula(copier, answer):
    said = [*reversed(answer), -1, -1, -1][:3]
    spelling = Spelling.of([(7, 0, -1), (4, 1, 0), (9, 2, 1), (7, 3, 2), (11, 1, -1), (12, 1, 4), (9, 2, 5)])
    hidden, latents, logits = torch.randn(HIDDEN), torch.randn(4, LATENTS), torch.randn(VOCAB)
    shares = copier.weights(
        hidden[None], copier.keys_of(latents, spelling), spelling.table(), torch.full((7,), -0.3),
        torch.tensor([said]), covered(spelling.table(), answer),
    )  # fmt: skip
    found = mixed(logits[None], shares, spelling.tokens.long()[None])[0].softmax(0)
    torch.testing.assert_close(found, by_hand(copier, hidden, latents, spelling, -0.3, answer, logits))
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))


def test_what_was_said_at_the_beginning_of_an_answer_covers_its_place_however_it_is_spelled():
    """A name that begins an answer is other tokens than inside a sentence, and no other edit's."""
    edit = Spelling.of([(7, 0, -1), (4, 1, 0), (9, 2, 1), (11, 1, -1), (9, 2, 3)])  # 11 for 4 where nothing is before
    table = joined([Spelling.plain([7, 4, 5]).table(), edit.table()])
    cover = covered(table, (11, 9))
    assert cover[0].tolist() == [0, 0, 0, 0, 1, 2, 0, 0]
    assert cover[0, table[:, -2]].tolist() == [0, 0, 0, 0, 1, 2, 1, 2]


def test_an_edit_that_was_said_begins_anew_only_if_the_others_were_said_too(copier):
    """Of two picks the answer has said the end of the first: what it says next begins in the second, and where it is
    in the middle of something it goes on."""
    copier.pick_again.data.zero_()[1, 0] = -50.0
    copier.match.data.zero_()
    table = joined([Spelling.plain([7, 4, 5]).table(), Spelling.plain([8, 4, 6]).table()])
    keys, bias, answer = torch.zeros(6, 5), torch.zeros(6), (4, 5, 3)

    def copied(count):
        said = torch.tensor([[*reversed(answer[:count]), -1, -1, -1][:3]])
        hidden = torch.zeros(1, HIDDEN)
        return copier.weights(hidden, keys, table, bias, said, covered(table, answer[:count])).copied[0]

    assert copied(3)[:3].max() < copied(3)[3:].min() - 40  # " and" stands in neither
    assert copied(1)[2] > copied(1)[0] - 1  # 4 was said, and matched nothing: cover 1


def test_the_base_is_held_back_from_an_edit_that_was_said_while_another_was_not(copier):
    """The base has read both edits and would say one of them twice."""
    copier.held.data.zero_()[0, 0] = -3.0
    table = joined([Spelling.plain([7, 4, 5]).table(), Spelling.plain([8, 4, 6]).table()])
    keys, bias, answer = torch.zeros(6, 5), torch.zeros(6), (5, 3)
    said = torch.tensor([[3, 5, -1]])

    def held(table, keys, bias):
        return copier.weights(torch.zeros(1, HIDDEN), keys, table, bias, said, covered(table, answer)).held[0]

    assert held(table, keys, bias).tolist() == [-3.0, -3.0, -3.0, 0.0, 0.0, 0.0]
    assert held(table[:3], keys[:3], bias[:3]).tolist() == [0.0, 0.0, 0.0]  # one edit alone may be said again
    logits = torch.randn(1, VOCAB)
    shares = Mixture(torch.zeros(1), torch.full((1, 6), -torch.inf), held(table, keys, bias)[None])
    expected = logits.clone()
    expected[0, [7, 5]] -= 3.0  # 4 stands in the other edit as well
    torch.testing.assert_close(mixed(logits, shares, table[:, 0][None]), expected)


def test_only_what_begins_anew_counts_as_a_repeat(copier):
    _, _, pick_again, held = (part.clone() for part in copier.steps())
    copier.against_repeats(2.0)
    for before, after in zip((pick_again, held), copier.steps()[2:], strict=True):
        for cover in range(5):
            for matches in range(4):
                repeated = matches < min(cover, 3)
                assert float(before[cover, matches] - after[cover, matches]) == pytest.approx(2.0 * repeated, abs=1e-5)


@pytest.mark.parametrize("answer", [(), (5,), (8, 4), (0, 4, 5, 3), (8, 4, 6, 3, 0)])
def test_with_several_picks_the_mixture_is_that_of_its_formula(copier, answer):
    """Also in a batch whose longest row is another: pads change nothing, not even of token 0."""
    picks = [Spelling.plain([0, 4, 5]), Spelling.plain([8, 4, 6, 0])]
    table = joined([pick.table() for pick in picks])
    keys = torch.cat([copier.keys_of(torch.randn(len(pick.tokens), LATENTS), pick) for pick in picks])
    bias, logits, hidden = torch.tensor([-0.1] * 3 + [-0.7] * 4), torch.randn(VOCAB), torch.randn(HIDDEN)
    said, cover = [*reversed(answer), -1, -1, -1][:3], covered(table, answer)[0]
    query, sentinel = copier.asks(hidden[None])
    scores, y = [float(sentinel)], {}
    of_pick = [max(cover[:3]), max(cover[3:])]
    for place, (token, *before, _, pick) in enumerate(table.tolist()):
        same = next((n for n in range(3) if before[n] != said[n]), 3)
        rest = copier.match[:same].sum() + copier.again[: cover[place]].sum()
        rest = rest + copier.pick_again[: of_pick[pick], same].sum()
        scores.append(float(query[0] @ keys[place] + rest + bias[place]))
        y[token] = max(y.get(token, -math.inf), float(copier.held[: of_pick[pick], same].sum()))
    weights = torch.tensor(scores).softmax(0)
    expected = logits.softmax(0) * weights[0]
    for token, own in y.items():
        expected[token] *= math.exp(own)
    for token, weight in zip(table[:, 0].tolist(), weights[1:], strict=True):
        expected[token] += weight
    pads = torch.tensor([[-1, -2, -2, -2, 0, 0]]).expand(2, -1)
    for more in (0, 2):
        wide = torch.cat([table, pads[:more]])
        shares = copier.weights(
            hidden[None], F.pad(keys, (0, 0, 0, more)), wide, F.pad(bias, (0, more), value=-torch.inf),
            torch.tensor([said]), F.pad(cover, (0, more))[None],
        )  # fmt: skip
        found = mixed(logits[None], shares, wide[:, 0][None])[0].softmax(0)
        torch.testing.assert_close(found, expected / expected.sum())


def test_rows_of_a_batch_are_those_of_each_alone_and_pads_weigh_nothing(copier):
    spellings = [Spelling.plain([3, 4, 5]), Spelling.plain([6, 7])]
    latents = [torch.randn(3, LATENTS), torch.randn(2, LATENTS)]
    hidden, said = torch.randn(2, HIDDEN), torch.tensor([[3, -1, -1], [6, -1, -1]])
    keys, table, bias = torch.zeros(2, 3, 5), torch.zeros(2, 3, 6).long(), torch.full((2, 3), -torch.inf)
    cover = torch.randint(0, 5, (2, 3))
    cover[1, 2] = 0  # no answer says a pad
    alone = []
    for i, spelling in enumerate(spellings):
        size = len(spelling.tokens)
        keys[i, :size], table[i, :size], bias[i, :size] = copier.keys_of(latents[i], spelling), spelling.table(), 0.0
        part = slice(i, i + 1)
        own = keys[i, :size], spelling.table(), torch.zeros(size), said[part], cover[part, :size]
        alone.append(copier.weights(hidden[part], *own))
    nothing, copied, _ = copier.weights(hidden, keys, table, bias, said, cover)
    torch.testing.assert_close(nothing, torch.cat([each.nothing for each in alone]))
    torch.testing.assert_close(copied[0], alone[0].copied[0])
    torch.testing.assert_close(copied[1, :2], alone[1].copied[0])
    assert copied[1, 2] == -torch.inf


def test_where_nothing_is_copied_the_base_says_what_it_would(copier):
    logits = torch.randn(1, VOCAB)
    found = mixed(logits, shares_of(torch.zeros(1), torch.full((1, 2), -torch.inf)), torch.tensor([[1, 2]]))
    torch.testing.assert_close(found, logits)


def test_no_token_of_the_base_is_lost_however_unlikely_it_is():
    """Where a grammar allows only unlikely tokens, their order decides."""
    logits = torch.tensor([[0.0, -200.0, -300.0, -400.0]])
    shares = shares_of(torch.tensor([-150.0]), torch.tensor([[0.0, -torch.inf]]))
    found = mixed(logits, shares, torch.tensor([[0, 1]]))
    torch.testing.assert_close(found.log_softmax(-1), torch.tensor([[0.0, -350.0, -450.0, -550.0]]))


def test_places_of_one_token_add_up():
    copied = torch.tensor([[0.25, 0.125, 0.125]]).log()
    shares = shares_of(torch.tensor([0.5]).log(), copied)
    found = mixed(torch.zeros(1, 4), shares, torch.tensor([[2, 3, 2]])).softmax(-1)
    torch.testing.assert_close(found, torch.tensor([[0.125, 0.125, 0.5, 0.25]]))


@pytest.mark.parametrize("places", [1, 2, 3, 64, 100, 257])
def test_many_places_of_few_tokens_add_up(places):
    """Of what is copied; and the base is held back as at the token's place where it is held back least."""
    torch.manual_seed(places)
    tokens = torch.randint(0, 5, (4, places))
    nothing, copied = torch.randn(4, 1 + places).log_softmax(-1).split([1, places], -1)
    copied = copied.masked_fill(torch.rand(4, places) < 0.2, -torch.inf)
    logits = 9 * torch.randn(4, VOCAB)
    held = torch.randn(4, places)
    base = logits.softmax(-1) * nothing.exp()
    for token in set(tokens.flatten().tolist()):
        of_token = held.masked_fill(tokens != token, -torch.inf).amax(-1)
        base[:, token] *= of_token.exp().where(of_token > -torch.inf, 1.0)
    p = base.scatter_add(1, tokens, copied.exp())
    found = mixed(logits, Mixture(nothing[:, 0], copied, held), tokens)
    torch.testing.assert_close(found.softmax(-1), p / p.sum(-1, keepdim=True))


def test_logits_that_copy_lie_as_high_as_the_bases():
    """A repetition penalty divides logits above 0 and multiplies others: of log-probabilities, which are never above 0,
    it would leave the likeliest as they are."""
    logits = torch.tensor([[20.0, 18.0, -3.0]])
    shares = shares_of(torch.tensor([-9.0]), torch.tensor([[math.log1p(-math.exp(-9))]]))
    found = mixed(logits, shares, torch.tensor([[2]]))
    assert found[0, 2] == pytest.approx(float(logits.logsumexp(-1)), abs=1e-3)
    torch.testing.assert_close(found[0, :2], logits[0, :2] - 9)


class Largest(TorchDispatchMode):
    """The largest number of elements that one result has had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for part in found if isinstance(found, tuple) else (found,):
            self.elements = max(self.elements, part.numel() if isinstance(part, torch.Tensor) else 0)
        return found


def test_long_spellings_take_no_table_of_all_pairs():
    """A batch is as wide as its longest request: a row of 2,560 places would take 26 MB."""
    rows, places, vocabulary = 3, 2560, 1000
    tokens, logits = torch.randint(0, vocabulary, (rows, places)), torch.randn(rows, vocabulary)
    with Largest() as largest:
        mixed(logits, shares_of(torch.zeros(rows), torch.zeros(rows, places)), tokens)
    assert largest.elements == rows * places
