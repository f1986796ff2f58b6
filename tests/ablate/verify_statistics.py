#!/usr/bin/env python3
"""tools/ablate/statistics against SciPy and statsmodels.

    python3 -m venv venv && venv/bin/pip install scipy==1.17.1 statsmodels==0.15.0
    venv/bin/python tests/ablate/verify_statistics.py            # exits 1 if the committed numbers are not theirs
    venv/bin/python tests/ablate/verify_statistics.py --write    # rewrites statistics_goldens.json

statistics_goldens_test.cc compares plait with the same file. Everything is exact but the bootstrap intervals, which
have 400,000 resamples here and other ones there.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np
import scipy
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import statsmodels
import statsmodels.api
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

FILE = pathlib.Path(__file__).parent / "statistics_goldens.json"
RESAMPLES = 400_000
SHAPES = [(0.5, 0.5), (2, 0.5), (24.5, 0.5), (499.5, 0.5), (50_000, 0.5), (1, 9), (9, 1), (3, 200), (87, 114),
          (700, 1300)]


def distributions():
    rows = {"beta": [], "student": [], "normal": [], "binomial": []}
    for a, b in SHAPES:
        for p in (1e-6, 0.025, 0.5, 0.8, 0.975):
            x = scipy.special.betaincinv(a, b, p)
            rows["beta"].append({"a": a, "b": b, "x": x, "cdf": scipy.special.betainc(a, b, x)})
    for degrees in (1, 4, 29, 61, 998, 30_000):
        for t in (0.05, 1.0, 2.5, 12.0):
            rows["student"].append({"t": t, "degrees": degrees, "p": 2 * scipy.stats.t.sf(t, degrees)})
        for level in (0.5, 0.95, 0.999):
            t = scipy.stats.t.isf((1 - level) / 2, degrees)
            rows["student"].append({"level": level, "degrees": degrees, "critical": t})
    for p in (1e-12, 0.025, 0.3, 0.5, 0.8, 0.975, 0.9995):
        rows["normal"].append({"p": p, "z": scipy.special.ndtri(p)})
    for n, k, q in [(1, 0, 0.5), (10, 2, 0.5), (51, 17, 0.5), (1000, 430, 0.5), (20, 20, 0.3), (37, 5, 0.1)]:
        rows["binomial"].append({"n": n, "k": k, "probability": q, "cdf": scipy.stats.binom.cdf(k, n, q)})
    return rows


def clustered(name, seed, clusters, items, unequal):
    """Items in clusters that share an offset; skewed, as losses are."""
    draw = np.random.default_rng(seed)
    ids = np.sort(draw.integers(0, clusters, items))
    offsets = draw.gamma(0.7, 0.5, clusters)
    weights = draw.integers(1, 60, items).astype(float) if unequal else np.ones(items)
    values = weights * (0.2 + offsets[ids] + draw.normal(0, 0.4, items))
    return {"name": name, "values": values.round(6).tolist(), "weights": weights.tolist(), "ids": ids.tolist()}


def sums(case):
    ids = np.unique(case["ids"], return_inverse=True)[1]
    return np.bincount(ids, case["values"]), np.bincount(ids, case["weights"])


def regression(case):
    values, weights = np.array(case["values"]), np.array(case["weights"])
    fit = statsmodels.api.WLS(values / weights, np.ones(len(values)), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(case["ids"])}, use_t=True)
    low, high = fit.conf_int()[0]
    return {"mean": fit.params[0], "standard_error": fit.bse[0], "t": fit.tvalues[0], "p": fit.pvalues[0],
            "interval": [low, high]}


def bootstrap(case, method):
    interval = scipy.stats.bootstrap(
        sums(case), lambda s, w, axis=-1: s.sum(axis) / w.sum(axis), paired=True, vectorized=True, method=method,
        n_resamples=RESAMPLES, batch=10_000, random_state=np.random.default_rng(5)).confidence_interval
    return [interval.low, interval.high]


def sign_flip(case):
    test = scipy.stats.permutation_test((sums(case)[0],), lambda s, axis=-1: np.abs(s.sum(axis)), vectorized=True,
                                        permutation_type="samples", n_resamples=np.inf, alternative="greater")
    return test.pvalue


def clusters():
    cases = [clustered("questions", 1, 40, 40, False), clustered("documents", 2, 12, 90, True),
             clustered("skewed", 3, 30, 200, True), clustered("three", 4, 3, 9, True)]
    for case in cases:
        case |= regression(case)
        case |= {"percentile": bootstrap(case, "percentile"), "bca": bootstrap(case, "BCa")}
        if len(sums(case)[0]) <= 14:
            case["sign_flip"] = sign_flip(case)
    return cases


def paired_t():
    draw = np.random.default_rng(6)
    base, other = draw.normal(2, 1, 25).round(6), draw.normal(2.4, 1, 25).round(6)
    test = scipy.stats.ttest_rel(other, base)
    return {"baseline": base.tolist(), "condition": other.tolist(), "t": test.statistic, "p": test.pvalue,
            "interval": list(test.confidence_interval(0.95))}


def proportions():
    rows = []
    for k, n, level in [(0, 50, 0.95), (13, 50, 0.95), (199, 199, 0.95), (1, 199, 0.99), (978, 2000, 0.95)]:
        intervals = {name: [float(v) for v in proportion_confint(k, n, 1 - level, method)]
                     for name, method in (("wilson", "wilson"), ("clopper_pearson", "beta"))}
        rows.append({"successes": k, "n": n, "level": level} | intervals)
    return rows


def discordant():
    pairs = [(0, 0), (1, 0), (7, 7), (3, 12), (60, 31), (400, 301)]
    return [{"lost": b, "gained": c, "p": min(1.0, mcnemar([[9, b], [c, 9]], exact=True).pvalue)} for b, c in pairs]


def multiplicity():
    draw = np.random.default_rng(7)
    families = [[0.01, 0.04, 0.03, 0.005], [0.2, 0.2, 0.2], [1.0], (draw.random(72) ** 3).round(8).tolist()]
    return [{"p": p, "holm": multipletests(p, method="holm")[1].tolist(),
             "bh": multipletests(p, method="fdr_bh")[1].tolist()} for p in families]


def power():
    """The chance to see an effect, in the direction it has; plait finds the effect from the chance."""
    return [{"clusters": n, "sd": sd, "effect": effect, "alpha": alpha,
             "power": NormalIndPower().power(effect / sd, n, alpha / 2, ratio=0, alternative="larger")}
            for n, sd, effect, alpha in [(50, 0.46, 0.18, 0.05), (2000, 0.46, 0.03, 0.05), (199, 1.3, 0.4, 0.01)]]


def log_bayes_factor(residuals, prior):
    """Of a normal prior N(0, 1 / prior) on mean / sd against 0, with 1 / sd under the right Haar prior in both.

    By quadrature over sd and the standardised mean. With s = 1 / sd, the density is
    s^(n - 1) exp(-(s^2 Q - 2 s d S + n d^2) / 2)."""
    n, total, squares = len(residuals), residuals.sum(), (residuals ** 2).sum()
    residuals_mode = math.sqrt((n - 1) / squares)
    scale = (n - 1) * math.log(residuals_mode) - residuals_mode ** 2 * squares / 2

    def density(s, d):
        exponent = (n - 1) * math.log(s) - (s * s * squares - 2 * s * d * total + n * d * d) / 2 - scale
        return math.exp(exponent - prior * d * d / 2) * math.sqrt(prior / (2 * math.pi))

    width, top = 12 / math.sqrt(prior), residuals_mode * 12
    with_mean = scipy.integrate.dblquad(density, -width, width, 1e-9, top, epsabs=0, epsrel=1e-10)[0]
    without = scipy.integrate.quad(lambda s: density(s, 0), 1e-9, top, epsabs=0, epsrel=1e-12)[0]
    return math.log(with_mean / without * math.sqrt(prior / (2 * math.pi)))


def sequences():
    rows = []
    for seed, n, tightest, unequal in [(8, 6, 6, False), (9, 15, 40, False), (10, 15, 10, True)]:
        draw = np.random.default_rng(seed)
        weights = draw.integers(40, 70, n).astype(float) if unequal else np.ones(n)
        values = (weights * draw.normal(0.5, 0.4, n)).round(6)
        evidence = -math.log(0.05)
        prior = tightest / (math.log(1 + 2 * evidence) + 2 * evidence)
        centre, spread = values.sum() / weights.sum(), (values / weights).std()

        def excess(m):
            return log_bayes_factor(values - m * weights, prior) - evidence

        ends = [scipy.optimize.brentq(excess, centre, centre + side * 8 * spread, xtol=1e-11) for side in (-1, 1)]
        rows.append({"sums": values.tolist(), "weights": weights.tolist(), "level": 0.95, "tightest_at": tightest,
                     "interval": ends})
    return rows


def everything():
    numbers = {"made_by": f"verify_statistics.py, SciPy {scipy.__version__}, statsmodels {statsmodels.__version__}",
               "resamples": RESAMPLES}
    numbers |= distributions()
    numbers |= {"clusters": clusters(), "paired_t": paired_t(), "proportions": proportions(), "mcnemar": discordant(),
                "multiplicity": multiplicity(), "power": power(), "confidence_sequence": sequences()}
    return json.loads(json.dumps(numbers, default=lambda v: v.item()))


def differences(ours, theirs, path=""):
    """Where two values differ by more than the last digits."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return [d for k in ours for d in differences(ours[k], theirs[k], f"{path}/{k}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [d for i, (a, b) in enumerate(zip(ours, theirs)) for d in differences(a, b, f"{path}/{i}")]
    numbers = isinstance(ours, (int, float)) and isinstance(theirs, (int, float))
    same = math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-15) if numbers else ours == theirs
    return [] if same else [f"{path}: {theirs} is committed, {ours} is right"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="rewrite the committed numbers")
    numbers = everything()
    if parser.parse_args().write:
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items()]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return 0
    found = differences(numbers, json.loads(FILE.read_text()))
    print("\n".join(found) or "the committed numbers are those of SciPy and statsmodels")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
