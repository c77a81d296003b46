"""Words of the three stages and of what ends each."""

from __future__ import annotations

from typing import Final

from tempo.report.page.text import Text

TITLE: Final = Text("From a pilot to routine", "試行から定着までの 3 段階")
LEAD: Final = Text(
    "Each stage ends when all of its criteria hold. Limits come from the figures of this plan, with a margin of {margin} "
    "for what predictions are off by.",
    "各段階は、すべての完了条件を満たした時点で終了します。基準値は本計画の数値に基づき、予測誤差として {margin} の"
    "余裕を見込んでいます。",
)
CRITERIA_OF: Final = Text("Exit criteria", "完了条件の一覧")
OF_STATE: Final = Text("{n} {state}", "{state} {n} 件")
CRITERION: Final = Text("Exit criterion", "完了条件")
STATE: Final = Text("State", "状態")
COMMAND: Final = Text("How it is measured", "確認方法")
STATES: Final = {
    "met": Text("met in this plan", "本計画で充足"),
    "not met": Text("not met", "未充足"),
    "open": Text("to be shown", "要確認"),
}
STAGES: Final = {
    "pilot": Text("Pilot", "試行"),
    "standardise": Text("Standardise", "標準化"),
    "routine": Text("Routine", "定着"),
}
PURPOSE: Final = {
    "pilot": Text(
        "One project, the most sensitive one: where the gain is greatest and the questions are hardest.",
        "最も機密性の高い案件を 1 件選びます。効果が最も大きく、最も厳しい検証ができるためです。",
    ),
    "standardise": Text(
        "The same rules for every project: keys in-house, evidence before keys, a log that others can check.",
        "全案件に同じ規則を適用します。鍵は自社で管理し、証拠の検証後にのみ鍵を渡し、第三者が検証できるログを残します。",
    ),
    "routine": Text(
        "Nothing to decide from day to day: limits that raise a question when they are passed.",
        "日々の判断を不要にします。基準値を超えた場合にのみ、見直しを行います。",
    ),
}
CRITERIA: Final = {
    "speed": Text(
        "A step takes {limit_seconds} at most, as predicted ({predicted_seconds}) with the margin",
        "1 ステップの実測時間が {limit_seconds} 以下（予測 {predicted_seconds} に余裕を加えた値）",
    ),
    "speed_measured": Text(
        "A step takes {limit_seconds} at most (predicted {predicted_seconds}, measured {measured_seconds})",
        "1 ステップの実測時間が {limit_seconds} 以下（予測 {predicted_seconds}、実測 {measured_seconds}）",
    ),
    "accuracy_epoch": Text(
        "Over an epoch of {steps_count} steps, trained plainly and under Tempo from one seed, losses differ by no more than "
        "the bound of docs/numerics.md",
        "1 エポック（{steps_count} ステップ）を同じシードで通常の方法と Tempo の双方で学習し、損失の差が "
        "docs/numerics.md の上限以内",
    ),
    "accuracy": Text(
        "Over an epoch, trained plainly and under Tempo from one seed, losses differ by no more than the bound of "
        "docs/numerics.md",
        "1 エポックを同じシードで通常の方法と Tempo の双方で学習し、損失の差が docs/numerics.md の上限以内",
    ),
    "attacks": Text(
        "No attack breaks your own model under scheme {scheme} or finds a leak beyond what is documented as visible",
        "お使いのモデルに対する攻撃で、方式 {scheme} の突破も、仕様上見える情報を超える漏えいもないこと",
    ),
    "leakage": Text(
        "What is visible by construction stays within class {leakage_class}; protect(require=...) refuses more",
        "方式の性質上見える情報が区分「{leakage_class}」以内（protect(require=...) が超過を拒否）",
    ),
    "lies": Text(
        "{lies_count} lies told on purpose are all caught, which bounds the share that is missed by {missed_share} with 95 % "
        "confidence",
        "意図的な不正 {lies_count} 件をすべて検出すること（見逃し率が {missed_share} 以下であることを信頼度 95 % で示す）",
    ),
    "pilot_cost": Text(
        "{epochs_count} epochs cost {limit_cost} at most, margin included",
        "{epochs_count} エポックの費用が {limit_cost} 以下（余裕を含む）",
    ),
    "epoch_cost": Text(
        "An epoch costs {limit_cost} at most, margin included",
        "1 エポックの費用が {limit_cost} 以下（余裕を含む）",
    ),
    "cost_unknown": Text(
        "A limit of cost is set: this plan was given no epoch or no prices",
        "費用の上限を定めること（本計画にはエポックまたは単価が指定されていません）",
    ),
    "pays": Text(
        "Sending work out is faster than the TEE alone: {speedup_times} for this model",
        "TEE 単独より速いこと（このモデルでは {speedup_times}）",
    ),
    "gpu_price": Text(
        "A worker's machine costs less than {limit_price} an hour",
        "ワーカー 1 台の単価が 1 時間あたり {limit_price} 未満",
    ),
    "gpu_never": Text(
        "Tempo is cheaper than the TEE alone: at these figures it is so at no price of a worker",
        "TEE 単独より安価であること（現在の数値では、ワーカーの単価にかかわらず成立しません）",
    ),
    "memory": Text(
        "The TEE has {tee_bytes} to spare, and each worker {worker_bytes}",
        "TEE に {tee_bytes}、各ワーカーに {worker_bytes} の空きメモリーがあること",
    ),
    "attestation": Text(
        "Each TEE's evidence is verified against a signed policy, and none is simulated",
        "すべての TEE の証拠を署名済みポリシーで検証し、シミュレーションによる証拠がないこと",
    ),
    "keys": Text(
        "Keys come from the in-house vault, data is sealed, and the audit log verifies",
        "鍵を自社の保管庫で管理し、データを封印し、監査ログの検証に合格すること",
    ),
    "chaos": Text(
        "Training survives workers that are killed, cut off, slowed down or lie",
        "ワーカーの停止、切断、遅延、不正が起きても学習が継続すること",
    ),
    "drift": Text(
        "Steps stay within {margin_share} of the plan ({limit_seconds}); else plan again",
        "1 ステップの時間が計画から {margin_share} 以内（{limit_seconds} 以下）。超えた場合は計画を作り直す",
    ),
    "routine_cost": Text(
        "An epoch stays below {limit_cost}; else ask why",
        "1 エポックの費用が {limit_cost} 以下。超えた場合は原因を調査する",
    ),
    "alternative": Text(
        "A confidential GPU costs more than {limit_price} an hour; below that, use one",
        "機密コンピューティング対応 GPU の単価が 1 時間あたり {limit_price} を上回ること。下回る場合はそちらを利用する",
    ),
    "incidents": Text(
        "No integrity event without an explanation; the log extends the last checkpoint",
        "原因不明の完全性イベントがなく、監査ログが直前のチェックポイントを引き継いでいること",
    ),
    "release": Text(
        "At each new release of Tempo the attacks are run again, and no verdict got worse",
        "Tempo の更新ごとに攻撃の測定を再実行し、判定が悪化していないこと",
    ),
}
