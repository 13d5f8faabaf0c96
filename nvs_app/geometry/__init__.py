"""Pure maths on tensors: cameras, rays, normalisation of the frame, camera paths.

Everything here works on batches, on any device, and edits no tensor of its caller. Small products are written
as broadcast multiply-and-add and not as ``matmul``, so that neither autocast nor TF32 can round a camera (the one
exception, rays on a CPU, says why).
"""
