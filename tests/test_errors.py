from lmms_ca_plugin.errors import nearest, unknown


def test_a_near_name_is_offered_and_a_far_one_is_not():
    assert nearest("contrastiv", ("contrastive", "dola")) == " Did you mean 'contrastive'?"
    assert nearest("zebra", ("contrastive", "dola")) == ""
    assert str(unknown("method", "dolla", ("vanilla", "dola"))) == (
        "Unknown method 'dolla'. Did you mean 'dola'? Allowed: dola, vanilla."
    )
