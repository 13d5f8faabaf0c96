"""From photos with cameras to new views, cell by cell: run it as a script, or its `# %%` cells in an editor.

python examples/notebook_style.py [SCENE] [OUT]     # a bundled scene, and outputs/notebook_style, unless given
"""

# %% Open a scene: a folder, zip or camera file of any format that is read. Pixels stay on disk.
import sys
from pathlib import Path

from nvs_app import Renderer, SceneState, open_scene
from nvs_app.evaluation.metrics import psnr
from nvs_app.geometry.paths import orbit
from nvs_app.rendering.depth_files import DepthFolder
from nvs_app.rendering.video import VideoWriter, save_png
from nvs_app.scenes.views import choose_views

SCENE = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "object_chair"
OUT = Path(sys.argv[2] if len(sys.argv) > 2 else "outputs/notebook_style")
VIEWS, SIZE, FRAMES = 8, (256, 256), 12  # input views, (height, width), frames of the video

scene = open_scene(SCENE)
print(f"{scene.name}: {len(scene)} views of {tuple(scene.image_hws[0].tolist())} pixels")

# %% Choose input views, evenly spread, and hold the others out.
split = choose_views(scene, VIEWS)
context = scene.load(split.context, SIZE)  # images [v, 3, H, W] in [0, 1], cameras [v]

# %% Encode once: the scene is now in the fast weights, and the photos' features beside them.
renderer = Renderer.from_checkpoint()
state = renderer.encode(context)

# %% Render a held-out view, and compare it with its photo.
held_out = scene.load(split.target[:1], SIZE)
image = renderer.render(state, held_out.cameras)
print(f"held-out view {split.target[0]}: {float(psnr(image, held_out.images)[0]):.2f} dB")

# %% Depth: z along the camera's axis, in the scene's units; with its uncertainty, and where no photo shows the place.
OUT.mkdir(parents=True, exist_ok=True)
views = renderer.render(state, held_out.cameras, depth=True) if renderer.detail else None
if views is not None:
    maps = DepthFolder(OUT, "png", scale=1000)
    maps.start()
    maps.save(0, views)
    print(f"depth {float(views.depth.min()):.2f} to {float(views.depth.max()):.2f}")
save_png(image[0], OUT / "00000.png")

# %% Save the state: without the photos, it renders the same.
SceneState.save(state, OUT / "scene.safetensors")
again = renderer.render(SceneState.load(OUT / "scene.safetensors"), held_out.cameras)
print(f"from the file: a difference of {float((again - image).abs().max()):.4f} at most")

# %% A video around the scene; frames come as they are rendered.
with VideoWriter(OUT / "orbit.mp4", fps=12.0) as video:
    for frames in renderer.stream(state, orbit(context.cameras, FRAMES)):
        video.add(frames)
print(f"written: {', '.join(sorted(path.name for path in OUT.iterdir()))} in {OUT}")
