// Gaussian splats drawn by the visitor's own GPU. Runs after the library (gsplat.js) in one module, see html.py.
//
//   const view = new nvsSplats.SplatView(canvas, bytes, { radius, background });   // bytes: a .splat file
//   view.draw({ c2w, fov });                        // 16 numbers row by row, OpenCV axes; vertical degrees
//   nvsSplats.steer(canvas, start);                 // a camera {c2w, fov} that follows the hand
{
  const SIZE = 4; // the library's own units for `radius`: its covariances are half floats

  class SplatView {
    constructor(canvas, bytes, { radius, background, offset = [0, 0, 0] }) {
      this.canvas = canvas; this.scale = SIZE / radius; this.offset = offset; // what splats are written less, cameras not
      this.renderer = new gsplat.WebGLRenderer(canvas, []);
      if (background) canvas.style.background = `rgb(${background.map((x) => Math.round(255 * x)).join(" ")})`;
      const data = gsplat.SplatData.Deserialize(new Uint8Array(bytes));
      data.scale(new gsplat.Vector3(this.scale, this.scale, this.scale));
      this.splats = new gsplat.Splat(data); this.scene = new gsplat.Scene(); this.camera = new gsplat.Camera();
      this.scene.addObject(this.splats);
      this.camera.data.near = 0.02 * SIZE; this.camera.data.far = 100 * SIZE;
      this.frames = 0;
    }
    get count() { return this.splats.data.vertexCount; }
    // How many splats the last frame had, in order of depth: none while they are still being sorted for the first time.
    get drawn() { return this.renderer.renderProgram.depthIndex.length; }
    draw({ c2w, fov }, pixels = Math.min(2, devicePixelRatio || 1)) {
      const { canvas, renderer, camera } = this;
      const width = Math.max(1, Math.round(canvas.clientWidth * pixels)), height = Math.max(1, Math.round(canvas.clientHeight * pixels));
      if (canvas.width !== width || canvas.height !== height) renderer.setSize(width, height);
      // The same view in the same order is there already.
      const { depthIndex } = renderer.renderProgram, key = [width, height, fov, ...c2w].join();
      if (this.drawn && key === this.key && depthIndex === this.order) return;
      this.key = key; this.order = depthIndex;
      const focal = height / (2 * Math.tan(fov * Math.PI / 360));
      camera.data.fx = camera.data.fy = focal;
      camera.data.setSize(width, height);
      const m = c2w, [x, y, z] = [m[3], m[7], m[11]].map((value, axis) => this.scale * (value - this.offset[axis]));
      camera.position = new gsplat.Vector3(x, y, z);
      camera.rotation = gsplat.Quaternion.FromMatrix3(new gsplat.Matrix3(m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]));
      camera.update();
      const program = renderer.renderProgram;
      if (program.initialized) { // the library sets these once only
        const { gl } = renderer, at = (name) => gl.getUniformLocation(program.program, name);
        gl.useProgram(program.program);
        gl.uniform2fv(at("focal"), new Float32Array([focal, focal]));
        gl.uniformMatrix4fv(at("projection"), false, camera.data.projectionMatrix.buffer);
      }
      renderer.render(this.scene, camera);
      this.frames++;
    }
    dispose() { this.renderer.dispose(); this.renderer.gl.getExtension("WEBGL_lose_context")?.loseContext(); }
  }

  const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = (a) => add([0, 0, 0], a, 1 / Math.max(Math.hypot(...a), 1e-12));
  const turned = (v, k, angle) => add(add(add([0, 0, 0], v, Math.cos(angle)), cross(k, v), Math.sin(angle)), k, dot(k, v) * (1 - Math.cos(angle)));

  // A camera that orbits about `focus`: drag turns, shift-drag, the right button or two fingers pan, the wheel or a pinch zooms.
  function steer(canvas, { c2w: m, fov, focus, up }) {
    const axes = { right: [m[0], m[4], m[8]], down: [m[1], m[5], m[9]], forward: [m[2], m[6], m[10]] };
    let eye = [m[3], m[7], m[11]], middle = [...focus];
    const pointers = new Map(), high = unit(up), step = 2.2;
    const turn = (axis, angle) => {
      for (const name of Object.keys(axes)) axes[name] = unit(turned(axes[name], axis, angle));
      eye = add(middle, turned(add(eye, middle, -1), axis, angle));
    };
    const orbit = (x, y) => {
      turn(high, -step * 2 * x);
      const height = Math.asin(Math.max(-1, Math.min(1, dot(axes.forward, high)))), wanted = Math.max(-1.48, Math.min(1.48, height - step * y));
      turn(axes.right, (dot(axes.down, high) <= 0 ? 1 : -1) * (wanted - height));
    };
    const pan = (x, y) => {
      const size = 2 * Math.tan(fov * Math.PI / 360) * Math.abs(dot(add(middle, eye, -1), axes.forward));
      const way = add(add([0, 0, 0], axes.right, -size * x), axes.down, -size * y);
      eye = add(eye, way); middle = add(middle, way);
    };
    const zoom = (factor) => { eye = add(middle, add(eye, middle, -1), Math.max(0.5, Math.min(2, factor))); };
    const at = (event) => [event.clientX / canvas.clientHeight, event.clientY / canvas.clientHeight];
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pointers.set(event.pointerId, at(event)); });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId), now = at(event);
      if (!before) return;
      const apart = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
      const [x, y] = add([...now, 0], [...before, 0], -1), gap = pointers.size === 2 && apart();
      pointers.set(event.pointerId, now);
      if (pointers.size === 2) { pan(x / 2, y / 2); zoom(gap / Math.max(apart(), 1e-6)); }
      else if (event.shiftKey || event.buttons > 1) pan(x, y);
      else orbit(x, y);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(event.deltaY * (event.ctrlKey ? 0.008 : 0.0015))); }, { passive: false });
    return () => {
      const { right: r, down: d, forward: f } = axes;
      return { c2w: [r[0], d[0], f[0], eye[0], r[1], d[1], f[1], eye[1], r[2], d[2], f[2], eye[2], 0, 0, 0, 1], fov };
    };
  }

  window.nvsSplats = { SplatView, steer };
}
