"""Columns of the six data sets, as the cards of lmms-lab's sets on the hub declare them.

Sources: dataset cards lmms-lab/GQA (6ac3999), VQAv2 (main), OK-VQA (main), VizWiz-VQA (main), DocVQA (700643a), and
textvqa (pppop7/textvqa, a duplicate of lmms-lab/textvqa). Where a card says "sequence of struct", the stored form, a
struct of lists, is written. Only the configurations and splits that the harness's six tasks and groups read are here.
"""

from __future__ import annotations

from datasets import Features, Image, Value

_TEXT = Value("string")
_NAMED_OBJECTS = [{"objectId": _TEXT, "value": _TEXT}]

GQA_QUESTIONS = Features(
    {
        "id": _TEXT,
        "imageId": _TEXT,
        "question": _TEXT,
        "answer": _TEXT,
        "fullAnswer": _TEXT,
        "isBalanced": Value("bool"),
        "groups": {"global": _TEXT, "local": _TEXT},
        "entailed": _TEXT,
        "equivalent": _TEXT,
        "types": {"structural": _TEXT, "semantic": _TEXT, "detailed": _TEXT},
        "annotations": {"question": _NAMED_OBJECTS, "answer": _NAMED_OBJECTS, "fullAnswer": _NAMED_OBJECTS},
        "semantic": [{"operation": _TEXT, "argument": _TEXT, "dependencies": [Value("int32")]}],
        "semanticStr": _TEXT,
    }
)
GQA_IMAGES = Features({"id": _TEXT, "image": Image()})
VQAV2 = Features(
    {
        "question_type": _TEXT,
        "multiple_choice_answer": _TEXT,
        "answers": [{"answer": _TEXT, "answer_confidence": _TEXT, "answer_id": Value("int64")}],
        "image_id": Value("int64"),
        "answer_type": _TEXT,
        "question_id": Value("int64"),
        "question": _TEXT,
        "image": Image(),
    }
)
OK_VQA = Features(
    {
        "question_id": _TEXT,
        "image": Image(),
        "question": _TEXT,
        "answers": [_TEXT],
        "question_type": _TEXT,
        "answer_type": _TEXT,
    }
)
VIZWIZ = Features({"question_id": _TEXT, "image": Image(), "question": _TEXT, "answers": [_TEXT], "category": _TEXT})
TEXTVQA = Features(
    {
        "image_id": _TEXT,
        "question_id": Value("int32"),
        "question": _TEXT,
        "question_tokens": [_TEXT],
        "image": Image(),
        "image_width": Value("int32"),
        "image_height": Value("int32"),
        "flickr_original_url": _TEXT,
        "flickr_300k_url": _TEXT,
        "answers": [_TEXT],
        "image_classes": [_TEXT],
        "set_name": _TEXT,
        "ocr_tokens": [_TEXT],
    }
)
DOCVQA = Features(
    {
        "questionId": _TEXT,
        "question": _TEXT,
        "question_types": [_TEXT],
        "image": Image(),
        "docId": Value("int64"),
        "ucsf_document_id": _TEXT,
        "ucsf_document_page_no": _TEXT,
        "answers": [_TEXT],
        "data_split": _TEXT,
    }
)
