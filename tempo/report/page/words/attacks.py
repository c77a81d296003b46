"""What each attack of `tempo attack` tries and must know, in words for people who are no cryptanalysts."""

from __future__ import annotations

from typing import Final

from tempo.report.page.text import Text

VERDICTS: Final = {
    "broken": Text("broken", "突破"),
    "leaks": Text("leaks", "漏えいあり"),
    "visible": Text("visible", "仕様上可視"),
    "undecided": Text("undecided", "判定保留"),
    "holds": Text("holds", "発見なし"),
    "skipped": Text("not measured", "未測定"),
}
MEANINGS: Final = {
    "broken": Text(
        "the attack did nearly as well as where nothing is hidden",
        "秘匿しない場合とほぼ同等の成果を攻撃者が得た",
    ),
    "leaks": Text("the attack did better than guessing", "無作為な推測を上回る成果を攻撃者が得た"),
    "visible": Text(
        "better than guessing, by something the documentation lists as visible",
        "無作為な推測を上回ったが、仕様として見えると明記している情報によるもの",
    ),
    "undecided": Text(
        "no better than guessing so far, with too few trials to be sure",
        "無作為な推測と差はないが、断定するには試行数が不足している",
    ),
    "holds": Text(
        "no better than guessing, measured closely; another attack may still do better",
        "十分な精度の測定で、無作為な推測と差がない（別の攻撃が成功する可能性は残る）",
    ),
    "skipped": Text(
        "there was nothing to attack, or the time ran out",
        "攻撃の対象がないか、測定時間が不足した",
    ),
}

#: By name: what it tries, and what the attacker must know beforehand.
ATTACKS: Final = {
    "sinkhorn": (
        Text(
            "Match hidden weights to published ones and read off the change",
            "公開済みの重みと照合し、変更分を読み取る",
        ),
        Text("the public weights the secret ones were tuned from", "微調整の元となった公開の重み"),
    ),
    "products": (
        Text(
            "Multiply an operand by its gradient, which may cancel the mask",
            "値とその勾配の積を取り、マスクを打ち消す",
        ),
        Text("nothing", "なし"),
    ),
    "labels": (
        Text("Read labels from the gradient of the classifier", "分類層の勾配から正解ラベルを読み取る"),
        Text("which operation is the classifier", "どの演算が分類層か"),
    ),
    "zero-pattern": (
        Text(
            "Recognise a batch, and link layers, by where zeros are",
            "ゼロの位置からバッチの識別や層の対応付けを行う",
        ),
        Text("candidate batches", "候補となるバッチ"),
    ),
    "layer-linking": (
        Text("Build a working copy of the network", "動作するモデルの複製を作る"),
        Text("data of the same kind, a few of them labelled", "同種のデータと少数の正解ラベル"),
    ),
    "invariants": (
        Text("Use what scaling and reordering leave unchanged", "並べ替えや拡大縮小で変わらない量を利用する"),
        Text("the public weights the secret ones were tuned from", "微調整の元となった公開の重み"),
    ),
    "directions": (
        Text("Match hidden rows of weights to published rows", "重みの各行を公開の行と照合する"),
        Text("the public weights the secret ones were tuned from", "微調整の元となった公開の重み"),
    ),
    "blind-separation": (
        Text("Unmix the data by its statistics alone", "統計的性質だけから混合を分離する"),
        Text("nothing", "なし"),
    ),
    "known-plaintext": (
        Text(
            "From inputs that it knows, open others under the same key",
            "既知の入力から、同じ鍵の別の入力を復元する",
        ),
        Text("some of the plain inputs", "一部の平文の入力"),
    ),
    "reuse": (
        Text("Compare operands that share a key", "鍵を共有する値どうしを比較する"),
        Text("nothing", "なし"),
    ),
    "moments": (
        Text("Find the strongest directions of a layer", "層の主要な方向を特定する"),
        Text("public weights near the secret ones, public data", "秘密の重みに近い公開の重みと公開データ"),
    ),
    "similarity": (
        Text("Name the batch or model among candidates", "候補の中からバッチやモデルを特定する"),
        Text("candidate batches and models", "候補となるバッチとモデル"),
    ),
    "spatial": (
        Text("See images in the maps of convolutions", "畳み込みの特徴マップから画像を復元する"),
        Text("the number of images in a batch", "バッチ内の画像数"),
    ),
    "learned-inversion": (
        Text("Train a network to recover inputs", "入力を復元するニューラルネットワークを学習させる"),
        Text("public data of the same kind, Tempo's code", "同種の公開データと Tempo のコード"),
    ),
    "learned-distinguishing": (
        Text(
            "Train a network to tell which kind of batch or which model was run",
            "バッチの種別やモデルを判別するネットワークを学習させる",
        ),
        Text(
            "public data of the same kind, candidate models, Tempo's code",
            "同種の公開データ、候補モデル、Tempo のコード",
        ),
    ),
    "tokens": (
        Text("Name the words of a text from hidden states", "隠れ状態から文章の単語を特定する"),
        Text("public weights of the model", "モデルの公開の重み"),
    ),
    "gradient-inversion": (
        Text("Rebuild inputs from the gradients of weights", "重みの勾配から入力を再構成する"),
        Text("public weights of the layer, public data", "層の公開の重みと公開データ"),
    ),
    "row-blocks": (
        Text(
            "Find which rows were mixed together, from zeros and repetitions",
            "ゼロや重複から、混合された行の組を特定する",
        ),
        Text("nothing", "なし"),
    ),
    "exact-constraints": (
        Text(
            "Use exact relations within an operand, such as its rank",
            "階数など、値に含まれる厳密な関係を利用する",
        ),
        Text("nothing", "なし"),
    ),
    "traffic": (
        Text("Read sizes and steps from traffic alone", "通信量だけから形状やステップを読み取る"),
        Text("the public architecture", "公開されたモデル構造"),
    ),
    "adaptive-covariances": (
        Text("Compare statistics of all operands under one key", "同じ鍵の全データの統計量を突き合わせる"),
        Text("nothing", "なし"),
    ),
    "adaptive-known": (
        Text(
            "Open other operands of the same key from a few known ones",
            "少数の既知データから、同じ鍵の他のデータを復元する",
        ),
        Text("plain rows of a few operands", "一部の平文の行"),
    ),
}
