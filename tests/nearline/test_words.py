from nearline.words import bucket, features


def test_features_are_words_pairs_and_whole_categories() -> None:
    assert list(features("The Red Shoes", "Ballet.", ["Film Noir"])) == [
        "any",
        "category:film noir",
        "word:the",
        "word:red",
        "word:shoes",
        "pair:the red",
        "pair:red shoes",
        "word:ballet",
    ]


def test_a_bucket_is_the_same_in_every_process() -> None:
    assert [bucket(word, 1000) for word in ("any", "word:red", "category:été")] == [261, 692, 589]
