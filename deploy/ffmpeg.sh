#!/bin/sh
# FFmpeg without its GPL parts, into the folder named: what PyAV links to, and what reading a post needs. Run in the folder with the source.
#   sh ffmpeg.sh ffmpeg-8.1.2.tar.xz /opt/ffmpeg
# PyAV's wheel holds x264 and x265, which are GPL; the images build PyAV from its source against this instead.
set -eu
source=$1
prefix=$2

tar -xf "$source" --strip-components=1 --one-top-level=ffmpeg
cd ffmpeg

# Every decoder that FFmpeg has of its own, so that a clip gives the same answer in an image as elsewhere; only the containers that
# the library opens (CONTAINERS in multimodal_fakes/media.py; mpeg is mpegps here); nothing that writes, no network, no devices.
# AV1 has no decoder of FFmpeg's own: dav1d (BSD) brings it.
./configure \
    --prefix="$prefix" --libdir="$prefix/lib" \
    --disable-gpl --disable-nonfree --disable-version3 --disable-autodetect --disable-network \
    --disable-static --enable-shared --disable-programs --disable-doc --disable-debug \
    --extra-ldsoflags="-Wl,-rpath,$prefix/lib" \
    --disable-everything --enable-zlib --enable-libdav1d \
    --enable-decoders --enable-parsers --enable-bsfs --enable-protocol=file \
    --enable-demuxer=mov,matroska,avi,flv,asf,mpegps,mpegts,ogg,wav,w64,mp3,aac,flac,aiff,amr,caf \
    --enable-filter=aformat,anull,aresample,format,null,scale
grep --quiet '^#define FFMPEG_LICENSE "LGPL version 2.1 or later"$' config.h
make -j"${JOBS:-$(nproc)}"
make install

# Libraries that Debian's slim image lacks, and what their licences ask for
cp -L "$(gcc -print-file-name=libdav1d.so.6)" "$prefix/lib/"
mkdir -p "$prefix/share/licences"
cp COPYING.LGPLv2.1 LICENSE.md "$prefix/share/licences/"
cp /usr/share/doc/libdav1d6/copyright "$prefix/share/licences/dav1d"
grep '^#define FFMPEG_CONFIGURATION' config.h > "$prefix/share/licences/CONFIGURATION"
cd ..
sha256sum "$source" > "$prefix/share/licences/SOURCE"
