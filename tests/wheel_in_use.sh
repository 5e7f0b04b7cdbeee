# What a user does first with an installed wheel: bash wheel_in_use.sh VERSION, where d2net is on the path.
set -euo pipefail
[ "$(d2net --version)" = "nnunetv2_d2net $1" ]
python -c 'import nnunetv2_d2net as ours; assert all(hasattr(ours, name) for name in ours.__all__)'
for command in segment convert train predict benchmark report; do
    d2net "$command" --help >/dev/null
done
d2net phantom --layout brats2018 -o phantom --train 1 --test 0 --size small
d2net segment phantom/training/* -o out
ls out/segmentation.nii.gz out/volumes.csv out/preview.png
