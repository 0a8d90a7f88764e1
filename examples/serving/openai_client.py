"""Draw with OpenAI's client: two digits, then one whose estimates are shown on the way.

difftool serve ddpm-mnist
python examples/serving/openai_client.py http://127.0.0.1:8000 pictures
"""

import base64
import sys
from pathlib import Path

from openai import OpenAI

# Fields that the client does not know; docs/serving.md lists all.
OURS = {"sampler": "ddim", "num_inference_steps": 20, "seed": 7}


def main(url: str, folder: Path) -> None:
    """Write the pictures into a folder."""
    folder.mkdir(exist_ok=True)
    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:  # a key if the server wants one
        model = next(iter(client.models.list())).id
        answer = client.images.generate(model=model, prompt="", n=2, extra_body=OURS)
        for index, image in enumerate(answer.data):
            (folder / f"{index}.png").write_bytes(base64.b64decode(image.b64_json))

        with client.images.generate(
            model=model, prompt="", stream=True, partial_images=3, extra_body=OURS
        ) as events:
            for event in events:
                print(event.type)  # image_generation.partial_image, and at last .completed
                (folder / "latest.png").write_bytes(base64.b64decode(event.b64_json))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
