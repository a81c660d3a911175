"""References in two scripts and translations of them that get worse and worse."""

import random

GERMAN = (
    "Der Zug nach Hamburg fährt heute von Gleis sieben ab.",
    "Meine Schwester hat gestern einen neuen Garten angelegt.",
    "Wir müssen vor dem Abendessen noch Brot kaufen.",
    "Die Lehrerin erklärt den Kindern, wie Regen entsteht.",
    "Ohne Brille kann er die kleine Schrift nicht lesen.",
    "Am Sonntag waren 1.250 Menschen auf dem Markt.",
    "Das alte Haus am Fluss gehört seit 1998 der Stadt.",
    "Bitte schließen Sie das Fenster, bevor Sie gehen!",
    "Ihr Bruder spielt besser Klavier als die meisten.",
    "Nach der Arbeit ging sie zu Fuß nach Hause.",
)
CHINESE = (
    "去汉堡的火车今天从七号站台出发。",
    "我姐姐昨天开辟了一个新花园。",
    "晚饭前我们还得去买面包。",
    "老师向孩子们解释雨是怎样形成的。",
    "不戴眼镜他看不清小字。",
    "星期天市场上有1250人。",
    "河边的老房子从1998年起属于市政府。",
    "请您走之前关上窗户！",
    "她弟弟的钢琴弹得比大多数人好。",
    "下班以后她走路回家。",
)


def worsened(references: tuple[str, ...], share: float, seed: int = 0) -> list[str]:
    """The references with about a share of their words, or characters where there are no words, lost or exchanged."""
    rng = random.Random(seed)
    texts = []
    for text in references:
        blank = " " if " " in text else ""
        parts = text.split() if blank else list(text)
        parts = [rng.choice(["", rng.choice(parts)]) if rng.random() < share else part for part in parts]
        texts.append(blank.join(part for part in parts if part))
    return texts
