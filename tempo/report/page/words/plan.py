"""Words of the plan's page."""

from __future__ import annotations

from typing import Final

from tempo.report.page.text import Text

TITLE: Final = Text("Plan for {model}", "{model} の実行計画")
TONES: Final = {
    "good": Text("Sending work out pays", "外部ワーカーの利用が有利です"),
    "care": Text("Faster, but an alternative may be better", "高速化しますが、他の方法との比較が必要です"),
    "bad": Text("Stay in the trusted machine", "信頼するマシン内での実行が有利です"),
}
FASTER: Final = Text(
    "One {unit} is predicted to take {tempo}, against {tee} in the trusted machine alone: {times} as fast. {share} of "
    "the linear arithmetic would go to workers.",
    "{unit}の予測時間は {tempo} で、信頼するマシン単独の {tee} に対して {times} の速度です。線形演算の {share} を"
    "ワーカーに送ります。",
)
SLOWER: Final = Text(
    "With the workers that were measured nothing is gained: one {unit} is predicted to take {tempo}, against {tee} in "
    "the trusted machine alone, and {share} of the linear arithmetic would go to workers.",
    "測定したワーカーでは効果が見込めません。{unit}の予測時間は {tempo} で、信頼するマシン単独では {tee} です"
    "（ワーカーに送る線形演算は {share}）。",
)
STEP: Final = Text("training step", "学習 1 ステップ")
REQUEST: Final = Text("request", "推論リクエスト 1 件")
CHEAPER: Final = Text(
    "An epoch would cost {tempo}, against {tee} in the trusted machine alone.",
    "1 エポックの費用は {tempo}（信頼するマシン単独では {tee}）の見込みです。",
)
FASTEST: Final = Text(
    "In its fastest arithmetic, which rounds more, the trusted machine alone would take {fastest}.",
    "丸め誤差の大きい最速の演算精度を使う場合、信頼するマシン単独での所要時間は {fastest} です。",
)
CONFIDENTIAL: Final = Text(
    "On a confidential GPU, if one can be had and its maker is trusted, it would cost {price}.",
    "機密コンピューティング対応 GPU を調達でき、その製造元を信頼できる場合の費用は {price} です。",
)
NO_MONEY: Final = Text(
    "Cost was not computed: it needs the size of an epoch (--samples) and prices.",
    "費用は算出していません。エポックのサンプル数（--samples）と単価が必要です。",
)
LEAKAGE: Final = Text(
    "Under scheme {scheme} the provider would see {kind}.",
    "方式 {scheme} で事業者から見えるのは、{kind}です。",
)
LEAKAGE_NONE: Final = Text(
    "Nothing would be sent, so the provider would see nothing.",
    "何も送信しないため、事業者から見える情報はありません。",
)
PREDICTED: Final = Text(
    "All figures are predictions from a short measurement of this machine, its links and its workers.",
    "数値はすべて、本マシン、通信路、ワーカーの短時間の測定に基づく予測です。",
)

KEY_SPEED: Final = Text("as fast as the trusted machine alone", "信頼するマシン単独に対する速度")
KEY_STEP: Final = Text("one {unit}, predicted", "{unit}（予測）")
KEY_SHARE: Final = Text("of the linear arithmetic to workers", "ワーカーに送る線形演算")
KEY_COST: Final = Text("one epoch under Tempo", "Tempo での 1 エポックの費用")
KEY_CLASS: Final = Text("what the provider sees: class of leakage", "事業者から見える情報の区分")
KEY_BYTES: Final = Text("over the boundary in one {unit}", "境界を越えるデータ量（{unit}）")

PLACEMENT: Final = Text("Which layer would run where", "各層の実行場所（計画）")
COUNT: Final = Text("Count", "数")
TEE_TIME: Final = Text("In the TEE", "TEE 内")
TEMPO_TIME: Final = Text("At the workers", "ワーカー利用時")
DECISION: Final = Text("Decision", "判断")
OFFLOAD: Final = Text("workers", "ワーカー")
STAY: Final = Text("TEE", "TEE")
LAW: Final = Text("Share of the law", "理論上限比")

TIME: Final = Text("Predicted time", "予測時間")
TIME_LEAD: Final = Text(
    "Of one {unit}, without the optimizer.", "{unit}あたり（オプティマイザーの処理を除く）。"
)
TEE_ALONE: Final = Text("TEE alone", "TEE 単独")
TEE_FASTEST: Final = Text(
    "TEE alone, linear layers in its fastest arithmetic", "TEE 単独（線形層を最速の演算精度で実行）"
)
AS_PLANNED: Final = Text("As planned", "本計画")
MASTER: Final = Text("What the trusted machine does itself", "うち、信頼するマシン自身の処理")
NOT_LINEAR: Final = Text("what is not linear (estimate)", "線形でない処理（推定）")
KEPT: Final = Text("linear work that stays", "TEE に残る線形演算")
NOT_YET: Final = Text("Not measured yet.", "まだ測定していません。")
COMPARED: Final = Text("Prediction against measurement", "予測と実測の比較")
PREDICTION: Final = Text("Predicted", "予測")
MEASUREMENT: Final = Text("Measured", "実測")
RATIO: Final = Text("Predicted / measured", "予測 / 実測")

COST: Final = Text("Cost and break-even prices", "費用と損益分岐価格")
COST_LEAD: Final = Text("One epoch, at your prices.", "1 エポックあたり（入力された単価による）。")
BREAK_EVEN: Final = Text("Break-even prices", "損益分岐価格")
BREAK_EVEN_LEAD: Final = Text(
    "At these prices Tempo and the alternative cost the same; everything else stays as it is.",
    "他の条件を一定とした場合に、Tempo と比較対象の費用が等しくなる価格です。",
)
EVEN: Final = {
    "gpu_per_hour": Text(
        "Tempo is cheaper than the TEE alone while a worker's machine costs less than this an hour",
        "ワーカー 1 台の時間単価がこれを下回る間、Tempo は TEE 単独より安価",
    ),
    "egress_per_gb": Text(
        "Tempo is cheaper than the TEE alone while a gigabyte of traffic costs less than this",
        "通信 1 GB の単価がこれを下回る間、Tempo は TEE 単独より安価",
    ),
    "confidential_gpu_per_hour": Text(
        "Tempo is cheaper than a confidential GPU once that costs more than this an hour",
        "機密コンピューティング対応 GPU の時間単価がこれを上回ると、Tempo の方が安価",
    ),
    "hour_saved": Text(
        "what each hour saved against the TEE alone costs; less than zero is a saving",
        "TEE 単独に対して短縮される 1 時間あたりの追加費用（負の値は節約）",
    ),
    "protection": Text(
        "what protection costs for an epoch, against the same GPU without any",
        "保護なしの GPU と比べた、1 エポックあたりの保護の費用",
    ),
}
PRICE_POINT: Final = Text("What it decides", "判断の基準")
BREAK_EVEN_PRICE: Final = Text("Price", "価格")
YOURS: Final = Text("Yours", "入力値")
NEVER: Final = Text("at no price", "どの価格でも成立しない")
PER_HOUR: Final = Text("{price} an hour", "1 時間あたり {price}")
PER_GB: Final = Text("{price} a GB", "1 GB あたり {price}")
PER_EPOCH: Final = Text("{price} an epoch", "1 エポックあたり {price}")

LEAK: Final = Text("What the provider would see", "事業者から見える情報")
LEAK_LEAD: Final = Text(
    "By construction, of the layers that would be sent. What attacks make of it is measured by tempo attack.",
    "送信予定の層について、方式の性質上見える情報です。攻撃による影響は tempo attack で測定します。",
)
ASSUMPTIONS: Final = Text("What this plan rests on", "本計画の前提")
ASSUMED: Final = (
    Text(
        "The optimizer, loading of data and Python between layers are not in the totals.",
        "オプティマイザー、データの読み込み、層間の Python の処理は合計に含みません。",
    ),
    Text(
        "A worker can be slow while it is measured and quick later, or the other way round: only the plan suffers.",
        "ワーカーの速度は測定時と実行時で異なる場合があります。その影響は計画の正確さに限られ、安全性には及びません。",
    ),
    Text(
        "GPU times of the alternatives are linear arithmetic over a rate alone, so they are lower bounds.",
        "比較対象の GPU の時間は、線形演算量を演算速度で割っただけの下限値です。",
    ),
)
CALIBRATED: Final = Text(
    "Measured {at}, planned with Tempo {version}", "測定日時：{at}（作成：Tempo {version}）"
)
