"""`lit-ssl pmi-vocabulary`."""

from __future__ import annotations

from lit_ssl.text import PMIVocabulary


def test_a_vocabulary_of_a_text_file(lit_ssl, workdir):
    (workdir / "captions.txt").write_text("A dog in New York.\nNew York at night\n" * 6)
    result = lit_ssl("pmi-vocabulary", "captions.txt", "pmi.tsv", "--size", 4, "--min-count", 2)
    assert result.code == 0
    assert result.out.startswith("wrote pmi.tsv: 3 collocations (2 of 2 words, 1 of 3 words)\n")
    assert "they cover" in result.out
    assert len(PMIVocabulary.load(workdir / "pmi.tsv")) == 3
    result = lit_ssl("pmi-vocabulary", "captions.txt", "pmi.tsv", "--min-count", 7)
    assert (workdir / "pmi.tsv").read_text().startswith("new york\t")
    assert result.code == 0


def test_mistakes_are_one_line(lit_ssl, workdir):
    (workdir / "captions.txt").write_text("a dog\n")
    for words, message in (
        (["nowhere.txt", "out"], "no text file at nowhere.txt"),
        (["captions.txt", "out"], "no two neighbouring words occur 10 times among the 2 words"),
        (["captions.txt", "out", "--coverage", "50"], "coverage must be a number from 0 to 1"),
        (["captions.txt", "out", "--tokenizer", "nowhere"], "No tokenizer at 'nowhere'"),
        (["captions.txt"], "the following arguments are required: out"),
    ):
        result = lit_ssl("pmi-vocabulary", *words)
        assert result.code == 2
        assert message in result.err
        assert result.err.count("\n") == 1
    assert not (workdir / "out").exists()
