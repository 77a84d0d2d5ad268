"""The losses against numpy, written out with their gradients, through one optimiser step; and their limits."""

import math

import numpy as np
import pytest
import torch

from asit_lab.errors import InputError
from asit_lab.objectives.losses import (
    contrastive_loss,
    cross_entropy,
    cross_view_loss,
    entropy,
    frame_loss,
    masked_l1,
    teacher_probabilities,
    uncertainty_weighted,
    utterance_loss,
)

STUDENT_T, TEACHER_T = 0.1, 0.04


@pytest.fixture
def draws() -> np.random.Generator:
    return np.random.default_rng(0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- distillation ---------------------------------------------------------------------------------------------------


def numpy_cross_view(student: np.ndarray, teacher: np.ndarray, centre: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and its gradient by the student's logits, [V, B, K]."""
    views, batch, _ = student.shape
    wanted, soft = softmax((teacher - centre) / TEACHER_T), softmax(student / STUDENT_T)
    loss, gradient, terms = 0.0, np.zeros_like(student), views * (views - 1)
    for s in range(views):
        for t in range(views):
            if s != t:
                loss -= (wanted[t] * np.log(soft[s])).sum() / batch / terms
                gradient[s] += (soft[s] - wanted[t]) / STUDENT_T / batch / terms
    return loss, gradient


@pytest.mark.parametrize("views", [2, 3])
def test_contrastive_loss_and_gradient(draws, views):
    student, teacher = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in draws.normal(size=(2, views, 5, 7)))
    loss, gradient, terms = 0.0, np.zeros_like(student), views * (views - 1)
    for s in range(views):
        for t in range(views):
            if s != t:
                guess = softmax(student[s] @ teacher[t].T / 0.2)  # [clip, clip]
                loss -= np.log(np.diag(guess)).mean() / terms
                gradient[s] += (guess - np.eye(5)) @ teacher[t] / 0.2 / 5 / terms
    ours = torch.tensor(student, requires_grad=True)
    value = contrastive_loss(ours, torch.tensor(teacher), 0.2)
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-9)
    np.testing.assert_allclose(ours.grad.numpy(), gradient, rtol=1e-7, atol=1e-12)


def test_contrastive_loss_between_its_limits():
    clips = torch.eye(6).expand(2, 6, 6)
    assert contrastive_loss(clips, clips, 0.01).item() == pytest.approx(0.0, abs=1e-6)
    alike = clips[:, :1].expand(2, 6, 6)
    assert contrastive_loss(alike, alike, 0.2).item() == pytest.approx(math.log(6))
    with pytest.raises(InputError, match="at least two views"):
        contrastive_loss(clips[:1], clips[:1], 0.2)


@pytest.mark.parametrize("views", [2, 3])
def test_cross_view_loss_and_gradient(draws, views):
    student, teacher = draws.normal(size=(2, views, 5, 7)) * 0.3
    centre = draws.normal(size=7) * 0.1
    loss, gradient = numpy_cross_view(student, teacher, centre)
    ours = torch.tensor(student, requires_grad=True)
    value = cross_view_loss(
        ours, teacher_probabilities(torch.tensor(teacher), torch.tensor(centre), TEACHER_T), STUDENT_T
    )
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-9)
    np.testing.assert_allclose(ours.grad.numpy(), gradient, rtol=1e-7, atol=1e-12)


def test_cross_view_loss_leaves_out_the_view_itself():
    """Where the student of each view says what the teacher of the other one does, nothing is left but entropy."""
    teacher = torch.tensor([[[8.0, 0.0, 0.0]], [[0.0, 0.0, 8.0]]])
    wanted = teacher_probabilities(teacher, torch.zeros(3), 1.0)
    crossed, same = teacher.flip(0), teacher
    assert cross_view_loss(crossed, wanted, 1.0).item() == pytest.approx(entropy(wanted).item(), rel=1e-5)
    assert cross_view_loss(same, wanted, 1.0) > 7.9


def test_one_view_raises():
    with pytest.raises(InputError, match="at least two views"):
        cross_view_loss(torch.zeros(1, 4, 5), torch.ones(1, 4, 5), 0.1)


def test_cross_entropy_of_rows(draws):
    student, teacher = draws.normal(size=(2, 3, 4, 6))
    wanted = softmax(teacher)
    ours = cross_entropy(torch.tensor(student), torch.tensor(wanted), STUDENT_T)
    assert ours.shape == (3, 4)
    np.testing.assert_allclose(ours.numpy(), -(wanted * np.log(softmax(student / STUDENT_T))).sum(-1), rtol=1e-9)


def test_teacher_is_centred_then_sharpened(draws):
    logits, centre = draws.normal(size=(4, 6)), draws.normal(size=6)
    ours = teacher_probabilities(torch.tensor(logits), torch.tensor(centre), 0.5)
    np.testing.assert_allclose(ours.numpy(), softmax((logits - centre) / 0.5), rtol=1e-9)
    uniform = teacher_probabilities(torch.tensor(centre)[None], torch.tensor(centre), 0.01)
    np.testing.assert_allclose(uniform.numpy(), 1 / 6)


def test_teacher_gets_no_gradient():
    teacher, student = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    cross_view_loss(student, teacher_probabilities(teacher, torch.zeros(4), 0.04), 0.1).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_arithmetic_is_at_least_single_precision(dtype):
    student, teacher = torch.randn(2, 2, 3, 64).to(dtype)
    probabilities = teacher_probabilities(teacher, torch.zeros(64), 0.04)
    at_least = torch.promote_types(dtype, torch.float32)
    assert probabilities.dtype == at_least
    loss = cross_view_loss(student, probabilities, 0.1)
    assert loss.dtype == at_least
    wanted = cross_view_loss(student.double(), teacher_probabilities(teacher.double(), torch.zeros(64), 0.04), 0.1)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert masked_l1(student, teacher).dtype == at_least


def test_large_logits_stay_finite():
    student = torch.tensor([[[1e4, -1e4]], [[-1e4, 1e4]]], requires_grad=True)
    loss = cross_view_loss(student, teacher_probabilities(student, torch.zeros(2), 0.01), 0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


# --- reconstruction -------------------------------------------------------------------------------------------------


def test_masked_l1_and_gradient(draws):
    rebuilt, target = draws.normal(size=(2, 3, 8, 6))
    mask = draws.random((3, 8, 6)) < 0.3
    ours = torch.tensor(rebuilt, requires_grad=True)
    value = masked_l1(ours, torch.tensor(target), torch.tensor(mask))
    value.backward()
    assert value.item() == pytest.approx(np.abs(rebuilt - target)[mask].mean(), rel=1e-9)
    np.testing.assert_allclose(ours.grad.numpy(), np.sign(rebuilt - target) * mask / mask.sum(), rtol=1e-9)
    everywhere = masked_l1(torch.tensor(rebuilt), torch.tensor(target))
    assert everywhere.item() == pytest.approx(np.abs(rebuilt - target).mean(), rel=1e-9)


def test_empty_mask_gives_nought_and_a_gradient_of_noughts():
    rebuilt = torch.randn(2, 4, 4, requires_grad=True)
    value = masked_l1(rebuilt, torch.zeros(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert (rebuilt.grad == 0).all()


def test_shapes_that_differ():
    with pytest.raises(InputError, match=r"masked_l1: .* differ: reconstruction \[2, 4, 4\], target \[2, 4, 5\]"):
        masked_l1(torch.zeros(2, 4, 4), torch.zeros(2, 4, 5))
    with pytest.raises(InputError, match=r"mask \[4, 4\]"):
        masked_l1(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), torch.ones(4, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (lambda s, p: cross_entropy(s, p, 0.1), [(6, 5), (1, 5)]),
        (lambda s, p: cross_entropy(s, p, 0.1), [(6, 5), (6, 1)]),
        (lambda s, p: cross_view_loss(s, p, 0.1), [(2, 4, 5), (2, 1, 5)]),
        (lambda s, p: cross_view_loss(s, p, 0.1), [(2, 4, 5), (3, 4, 5)]),
        (lambda s, p: contrastive_loss(s, p, 0.1), [(2, 8, 5), (2, 9, 5)]),
        (frame_loss, [(1, 10, 8), (2, 10, 8), (1, 10)]),
        (frame_loss, [(5, 10, 8), (2, 10, 8), (5, 10)]),
        (frame_loss, [(4, 10, 8), (2, 10, 8), (2, 10)]),
        (frame_loss, [(4, 10, 8), (0, 10, 8), (4, 10)]),
        (utterance_loss, [(1, 8), (2, 8)]),
        (utterance_loss, [(4, 8), (2, 1)]),
    ],
)
def test_shapes_that_would_broadcast(loss, shapes):
    with pytest.raises(InputError, match="shapes that are to be the same differ"):
        loss(*(torch.ones(shape) for shape in shapes))


def test_nothing_hidden_gives_nought():
    assert frame_loss(torch.ones(4, 3, 8), torch.zeros(2, 3, 8), torch.zeros(4, 3, dtype=torch.bool)) == 0


# --- through an optimiser step --------------------------------------------------------------------------------------


def test_one_step_of_adam_against_numpy(draws):
    """Student logits and reconstruction are linear in one weight each; losses, gradients and AdamW written out."""
    x = draws.normal(size=(2, 5, 4))  # [V, B, inputs]
    teacher, centre = draws.normal(size=(2, 5, 7)) * 0.3, draws.normal(size=7) * 0.1
    target, mask = draws.normal(size=(2, 5, 6)), draws.random((2, 5, 6)) < 0.5
    weights = {"head": draws.normal(size=(4, 7)) * 0.2, "decoder": draws.normal(size=(4, 6)) * 0.2}
    rate, decay, betas, eps = 1e-2, 0.1, (0.9, 0.999), 1e-8

    parameters = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in weights.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=decay, betas=betas, eps=eps)
    m, v = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    for step in (1, 2, 3):
        inputs = torch.tensor(x)
        probabilities = teacher_probabilities(torch.tensor(teacher), torch.tensor(centre), TEACHER_T)
        total = cross_view_loss(inputs @ parameters["head"], probabilities, STUDENT_T)
        total = total + masked_l1(inputs @ parameters["decoder"], torch.tensor(target), torch.tensor(mask))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

        loss, by_logits = numpy_cross_view(x @ weights["head"], teacher, centre)
        error = x @ weights["decoder"] - target
        loss += np.abs(error)[mask].mean()
        assert total.item() == pytest.approx(loss, rel=1e-9)
        gradients = {
            "head": np.einsum("vbi,vbk->ik", x, by_logits),
            "decoder": np.einsum("vbi,vbk->ik", x, np.sign(error) * mask / mask.sum()),
        }
        for name, gradient in gradients.items():
            m[name] = betas[0] * m[name] + (1 - betas[0]) * gradient
            v[name] = betas[1] * v[name] + (1 - betas[1]) * gradient**2
            first, second = m[name] / (1 - betas[0] ** step), v[name] / (1 - betas[1] ** step)
            weights[name] = weights[name] * (1 - rate * decay) - rate * first / (np.sqrt(second) + eps)
            np.testing.assert_allclose(parameters[name].detach().numpy(), weights[name], rtol=1e-8)


# --- entropy and weighting ------------------------------------------------------------------------------------------


def test_entropy_from_nought_to_ln_k(draws):
    assert entropy(torch.full((3, 64), 1 / 64)).item() == pytest.approx(math.log(64), rel=1e-6)
    assert entropy(torch.eye(64)).item() == 0.0
    rows = softmax(draws.normal(size=(5, 8)))
    assert entropy(torch.tensor(rows)).item() == pytest.approx(-(rows * np.log(rows)).sum(-1).mean(), rel=1e-9)


def test_uncertainty_weighting_and_its_gradient():
    losses = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(0.5, requires_grad=True)}
    logs = {"a": torch.tensor(0.3, requires_grad=True), "b": torch.tensor(-0.2, requires_grad=True)}
    total = uncertainty_weighted(losses, logs)
    total.backward()
    assert total.item() == pytest.approx(math.exp(-0.3) * 2.0 + 0.3 + math.exp(0.2) * 0.5 - 0.2, rel=1e-6)
    for name, loss in losses.items():
        weight = math.exp(-logs[name].item())
        assert loss.grad.item() == pytest.approx(weight, rel=1e-6)
        assert logs[name].grad.item() == pytest.approx(1 - weight * loss.item(), rel=1e-6)


def test_uncertainty_weighting_comes_to_rest_at_the_log_of_the_loss():
    logs = {"a": torch.tensor(math.log(2.0), requires_grad=True)}
    uncertainty_weighted({"a": torch.tensor(2.0)}, logs).backward()
    assert abs(logs["a"].grad.item()) < 1e-6
