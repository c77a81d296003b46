// The C interface of the lowering passes: plain structs, filled by tempo/kernels/native_images.py, which
// checks them.
//
// Axes: B images, C channels, H W pixels, P points, R rows, G groups, A E offsets in a window.
#pragma once
#include <cstdint>

extern "C" {

// (B, C, H, W), strides in elements, any.
struct Image {
    void* data;
    int64_t batch, channels, height, width;
    int64_t to_image, to_channel, to_row, to_pixel;
    int32_t type;
};

// Tiles of `side` x `side` pixels, m apart, the first one `top` and `left` before the image; as points
// (P, R, C), contiguous, R = (b, i, j).
struct Tiles {
    Image image;
    void* points;
    int64_t down, across, top, left;
    int32_t m, side;
};

// Windows as rows (G, R, A E C / G), contiguous, R = (b, i, j).
struct Windows {
    Image image;
    void* rows;
    int64_t groups, down, across, top, left;
    int64_t kernel[2], stride[2], dilation[2];
};

struct ImagePasses {
    int (*to_points)(const Tiles*, int threads);
    int (*from_points)(const Tiles*, int threads);
    int (*to_windows)(const Windows*, int threads);
    int (*from_windows)(const Windows*, int threads);
    int (*to_rows)(const Image*, void* rows, int64_t groups, int threads);    // rows: (G, B H W, C / G)
    int (*from_rows)(const Image*, void* rows, int64_t groups, int threads);
};

}  // extern "C"
