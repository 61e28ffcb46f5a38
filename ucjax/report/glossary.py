"""What the page explains: its terms, and how the numbers were measured."""

GLOSSARY = {
    "clean": "The same images without noise, written and decoded the same way.",
    "random": "Every image gets its own noise of full strength. This is the null: noise as such.",
    "cluster random": "One fixed random pattern per cluster, same clusters. A pattern that goes "
    "with the content protects by itself, so learnt noise must beat this to have earned its cost.",
    "protected": "One learnt noise per cluster, which moves its images to a wrong cluster's "
    "centre in the eyes of the surrogate. These are the files to publish.",
    "moved": "Share of files whose features are nearest to that wrong centre.",
    "last, peak": "Accuracy on clean test images after the last epoch, and after the best one, "
    "which an exploiter with clean test images could keep.",
    "δ, eps": "The change of a pixel, and its budget. Maximum in levels of 0 to 255, from files.",
    "PSNR, SSIM": "Likeness to the clean image, median over files (∞ dB and 1: identical).",
    "purity": "Share of images whose label is the commonest in their cluster (1: the clusters "
    "know the labels).",
    "surrogate": "The frozen network whose features are clustered and attacked.",
    "victim": "A classifier trained from scratch by somebody who copied the files.",
    "recipe, treatment": "How a victim is trained (mixup, adversarially), and what is done to the "
    "files before (JPEG, grey). Each is compared with the same on clean files.",
    "row, column": "What made the files, and who trains on them. Strings name them, such as "
    "uc:eps=8 and resnet18+jpeg75.",
    "guessing": "What naming the commonest class of the test images reaches. A victim near it has "
    "learnt nothing, and one of clean files near it shows nothing.",
    "seen early": "Share of unseen files whose cluster a small network tells after 100 steps of "
    "training. Noise that is not seen early, a victim learns late or never.",
    "protector": "The noises and the clusters' centres in a folder, with which other images are "
    "protected without training. It is what undoes the protection: keep it private.",
}
PROTOCOL = (
    "Every image of the published set carries the noise of its own cluster, chosen by image and "
    "never by label, and added once, before any augmentation. The noisy images are rounded to 8 "
    "bits and written as lossless files; every arm is written so. Victims and all measurements "
    "read these files back, as a downloader would: no number here comes from anything that was "
    "not written. Victims crop and flip what they read. They are tested on clean images after "
    "every epoch; the last epoch and the peak are both given. A seed sets the victim's weights, "
    "order and crops; clusters and noise are the same for all seeds."
)
