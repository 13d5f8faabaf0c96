"""The shader: glTF's metallic-roughness material under light that comes from all sides.

Half of the light is a white environment of the same radiance in every direction, for which diffuse and specular
reflection have a closed form; the other half comes from six equal directional lights along the axes of the world. The
six give shapes a little relief, which a perfectly even environment would not; they stand still and are the same from
all sides, so a surface looks alike wherever the camera is, but for its highlights. No shadows.

Sources: BRDF as in the glTF 2.0 specification, appendix B; environment term: B. Karis, "Physically Based Shading on
Mobile" (2014), an approximation of the split-sum integral.
"""

VERTEX = """
#version 330 core
in vec3 in_position;
in vec3 in_normal;
in vec4 in_color;
in vec4 in_uv;
in vec4 in_uv_b;
in vec4 in_uv_c;
uniform mat4 view_projection;
out vec3 position;
out vec3 normal;
out vec4 color;
out vec4 uv;
out vec4 uv_b;
out vec4 uv_c;
void main() {
    position = in_position;
    normal = in_normal;
    color = in_color;
    uv = in_uv;
    uv_b = in_uv_b;
    uv_c = in_uv_c;
    gl_Position = view_projection * vec4(in_position, 1.0);
}
"""

FRAGMENT = """
#version 330 core
in vec3 position;
in vec3 normal;
in vec4 color;
in vec4 uv;  // two sets each; a material has five textures at most
in vec4 uv_b;
in vec4 uv_c;
out vec4 result;  // linear, alpha-premultiplied

uniform vec3 eye;
uniform bool unlit;
uniform bool has_normals;
uniform bool has[5];
uniform int uv_set[5];
uniform mat3 uv_transform[5];
uniform sampler2D base_map;
uniform sampler2D metal_rough_map;
uniform sampler2D normal_map;
uniform sampler2D occlusion_map;
uniform sampler2D emissive_map;
uniform vec4 base_color;
uniform float metallic_factor;
uniform float roughness_factor;
uniform vec3 emissive_factor;
uniform float normal_scale;
uniform float occlusion_strength;
uniform int alpha_mode;  // 0 opaque, 1 mask, 2 blend
uniform float alpha_cutoff;

const float PI = 3.14159265;
const float EXPOSURE = 0.928;  // the brightest white surface is just white
const float ENVIRONMENT = 0.5;
const float LIGHT = 0.5 / 1.5;  // 1.5: the mean of |nx| + |ny| + |nz| over directions

vec2 coordinates(int slot) {
    vec4 two = uv_set[slot] < 2 ? uv : uv_set[slot] < 4 ? uv_b : uv_c;
    vec2 raw = uv_set[slot] % 2 == 0 ? two.xy : two.zw;
    return (uv_transform[slot] * vec3(raw, 1.0)).xy;
}

vec3 surface_normal() {
    vec3 across = dFdx(position), down = dFdy(position);
    vec3 n = has_normals && dot(normal, normal) > 1e-8 ? normalize(normal) : normalize(cross(across, down));
    if (has[2]) {
        vec2 at = coordinates(2), at_x = dFdx(at), at_y = dFdy(at);
        float det = at_x.x * at_y.y - at_x.y * at_y.x;
        if (abs(det) > 1e-20) {
            // Along +u and along -v: the green channel of a normal map points up the image.
            vec3 t = (across * at_y.y - down * at_x.y) / det;
            vec3 b = -(down * at_x.x - across * at_y.x) / det;
            t = normalize(t - n * dot(n, t));
            b = b - n * dot(n, b);
            b = normalize(b - t * dot(t, b));
            vec3 m = texture(normal_map, at).xyz * 2.0 - 1.0;
            m.xy *= normal_scale;
            n = normalize(t * m.x + b * m.y + n * m.z);
        }
    }
    return n;
}

void main() {
    vec4 base = base_color * color;
    if (has[0]) base *= texture(base_map, coordinates(0));
    if (alpha_mode == 1) {
        if (base.a < alpha_cutoff) discard;
        base.a = 1.0;
    }
    if (alpha_mode == 0) base.a = 1.0;
    if (unlit) {
        result = vec4(base.rgb * base.a, base.a);
        return;
    }
    vec3 view = normalize(eye - position);
    vec3 n = surface_normal();
    if (dot(n, view) < 0.0) n = -n;  // the other side of a surface, and normals that point inwards
    float nv = max(dot(n, view), 1e-3);
    float roughness = roughness_factor, metallic = metallic_factor;
    if (has[1]) {
        vec4 both = texture(metal_rough_map, coordinates(1));
        roughness *= both.g;
        metallic *= both.b;
    }
    roughness = clamp(roughness, 0.05, 1.0);
    metallic = clamp(metallic, 0.0, 1.0);
    vec3 diffuse = base.rgb * (1.0 - metallic);
    vec3 f0 = mix(vec3(0.04), base.rgb, metallic);

    vec4 r = roughness * vec4(-1.0, -0.0275, -0.572, 0.022) + vec4(1.0, 0.0425, 1.04, -0.04);
    float a004 = min(r.x * r.x, exp2(-9.28 * nv)) * r.x + r.y;
    vec2 ab = vec2(-1.04, 1.04) * a004 + r.zw;
    // What single scattering loses is given back, so that a white metal is white (C. Kulla and A. Conty, 2017).
    vec3 regained = 1.0 + f0 * (1.0 / (ab.x + ab.y) - 1.0);
    vec3 mirrored = (f0 * ab.x + ab.y) * regained;
    vec3 light = ENVIRONMENT * (diffuse * (1.0 - mirrored) + mirrored);
    if (has[3]) light *= mix(1.0, texture(occlusion_map, coordinates(3)).r, occlusion_strength);

    // The six stand for light from everywhere: broad ones, whose highlights stay soft on smooth surfaces too.
    float alpha2 = pow(max(roughness, 0.6), 4.0);
    for (int i = 0; i < 6; i++) {
        vec3 l = vec3(0.0);
        l[i / 2] = (i % 2 == 0) ? 1.0 : -1.0;
        float nl = dot(n, l);
        if (nl <= 0.0) continue;
        vec3 h = normalize(l + view);
        float nh = max(dot(n, h), 0.0), vh = max(dot(view, h), 0.0);
        vec3 fresnel = f0 + (1.0 - f0) * pow(1.0 - vh, 5.0);
        float lobe = nh * nh * (alpha2 - 1.0) + 1.0;
        float d = alpha2 / (PI * lobe * lobe);
        float v = 0.5 / (nl * sqrt(nv * nv * (1.0 - alpha2) + alpha2) + nv * sqrt(nl * nl * (1.0 - alpha2) + alpha2));
        light += LIGHT * nl * ((1.0 - fresnel) * diffuse + min(fresnel * d * v * PI * regained, vec3(4.0)));
    }
    vec3 emitted = emissive_factor;
    if (has[4]) emitted *= texture(emissive_map, coordinates(4)).rgb;
    // Clamped before the samples of a pixel are averaged: one bright sample must not outshine its pixel.
    vec3 shown = clamp(light * EXPOSURE + emitted, 0.0, 1.0);
    result = vec4(shown * base.a, base.a);
}
"""
